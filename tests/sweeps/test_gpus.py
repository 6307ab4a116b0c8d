"""Which GPUs there are, MIG slices included, and that every process of a local sweep gets its own."""

import os
import time
from pathlib import Path

import pytest

from domainbed_sage.sweeps import gpus, local
from domainbed_sage.sweeps.gpus import parse, visible

LISTING = """\
GPU 0: NVIDIA A100-PCIE-40GB (UUID: GPU-aaaa-0)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111-a)
  MIG 3g.20gb     Device  1: (UUID: MIG-1111-b)
GPU 1: NVIDIA A100-PCIE-40GB (UUID: GPU-bbbb-1)
GPU 2: NVIDIA A100-PCIE-40GB (UUID: GPU-cccc-2)
  MIG 1c.3g.20gb  Device  0: (UUID: MIG-GPU-cccc-2/1/0)
"""


def test_slices_stand_for_their_gpu():
    assert parse(LISTING) == ["MIG-1111-a", "MIG-1111-b", "GPU-bbbb-1", "MIG-GPU-cccc-2/1/0"]
    assert parse("No devices were found") == []


@pytest.mark.parametrize(("value", "devices"), [("0,1", ["0", "1"]), ("MIG-1111-b", ["MIG-1111-b"]), ("", [])])
def test_what_slurm_has_given(monkeypatch, value, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible() == devices


def test_a_machine_without_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    assert visible() == []


def test_nvidia_smi_is_asked(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'LIST'\n{LISTING}LIST\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert visible() == parse(LISTING)


def test_nvidia_smi_that_does_not_answer(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(gpus, "WAIT_S", 0.2)
    assert visible() == []


def test_every_process_has_a_gpu_of_its_own(tmp_path):
    workers = local._Workers(jobs=2, threads=1, devices=("MIG-1111-a", "GPU-bbbb-1"), stop=local.threading.Event())
    pool = workers.pool()
    futures = [pool.submit(device_when_all_work, tmp_path, name, 2) for name in "ab"]
    assert {future.result() for future in futures} == {"MIG-1111-a", "GPU-bbbb-1"}
    pool.shutdown()


def device_when_all_work(meeting: Path, name: str, count: int) -> str:
    """The device this process was given, once as many are at work: however slowly one starts, none does two jobs."""
    (meeting / name).touch()
    give_up = time.monotonic() + 120
    while len(list(meeting.iterdir())) < count and time.monotonic() < give_up:
        time.sleep(0.05)
    return os.environ["CUDA_VISIBLE_DEVICES"]
