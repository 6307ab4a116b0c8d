"""Sweeps in worker processes that fail, are killed and are interrupted."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers import alive, assert_same, command, ended, on_cpu, run, wait_for

from domainbed_sage.cli import main
from domainbed_sage.config import Machine
from domainbed_sage.core.errors import UserError
from domainbed_sage.sweeps import local
from domainbed_sage.sweeps.local import Outcome, run_missing
from domainbed_sage.sweeps.sweep import read_sweep
from domainbed_sage.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("forget_plugins", "restore_signals")

ONE_THREAD_EACH = ["--device", "cpu", "--jobs", str(len(os.sched_getaffinity(0)))]
SETTINGS = """
name: s
datasets: [EmojiStyles]
checkpoint_freq: 40
trials: 1
hparams: {width: 8, batch_size: 2}
plugins: [troubled.py]
"""


@pytest.fixture
def write_sweep(tmp_path):
    """Write a sweep file with a plugin from outside the package beside it."""
    shutil.copy(Path(__file__).parents[1] / "troubled.py", tmp_path)

    def write(text):
        (tmp_path / "s.yaml").write_text(SETTINGS + text)
        return tmp_path / "s.yaml"

    return write


def sweep_run(file, *words):
    return main(["sweep", "run", str(file), "--output_dir", str(file.parent / "results"), *ONE_THREAD_EACH, *words])


def folders(file):
    return {r.algorithm + str(r.test_envs[0]): file.parent / "results" / r.folder_name for r in read_sweep(file).runs()}


def changes(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def assert_undisturbed(file):
    """Every run of the sweep is as one that this process does alone."""
    for config in read_sweep(file).runs():
        alone = run(config, file.parent / "alone" / config.folder_name)
        assert_same(file.parent / "results" / config.folder_name, alone)


def test_failing_and_dying_runs(write_sweep, tmp_path, monkeypatch, capsys):
    """One run fails, one kills its process, one needs an installed plugin; then the cause is mended."""
    (tmp_path / "of_a_package.py").write_text(
        "from domainbed_sage.algorithms import algorithms, register\n\n\n"
        "@register('Installed')\nclass Installed(algorithms['ERM']):\n    pass\n"
    )
    (tmp_path / "package-1.0.dist-info").mkdir()
    (tmp_path / "package-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: package\nVersion: 1.0\n")
    entry_points = "[domainbed_sage.plugins]\nplugin = of_a_package\n"
    (tmp_path / "package-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))

    file = write_sweep("steps: 6\ntest_envs: [[0]]\nalgorithms: [Fails, Dies, Installed, Forks]\n")
    assert sweep_run(file) == 1
    out, err = capsys.readouterr()
    assert "3 of 4 runs are done (3 now)" in err
    reason = r"1 failed:\n  EmojiStyles-Fails-\S+\n    ZeroDivisionError: the plugin's own mistake \(see err\.txt"
    assert re.search(reason, err)
    assert "only the missing runs are executed" in " ".join(err.split())
    finished = r"^ *\d/4  \w+, held out fluent_hc, trial 0: [\d.]+ \(validation [\d.]+\), \d+ s(; about .* left)?$"
    assert len(re.findall(finished, out, re.MULTILINE)) == 3
    found = folders(file)
    assert "the plugin's own mistake" in (found["Fails0"] / "err.txt").read_text()
    assert (tmp_path / "died").exists()

    before = {name: changes(folder) for name, folder in found.items()}
    (tmp_path / "mended").touch()
    assert sweep_run(file) == 0
    assert "4 of 4 runs are done (1 now)" in capsys.readouterr().err
    assert {name for name, folder in found.items() if changes(folder) != before[name]} == {"Fails0"}
    assert_undisturbed(file)
    assert run_missing(read_sweep(file).runs(), on_cpu(file.parent / "results")) == Outcome(0, 4, {})


def test_killed_and_interrupted(write_sweep, tmp_path, capsys):
    """The sweep is killed, started again at once, interrupted by Ctrl-C, and finished."""
    file = write_sweep("steps: 80\ntest_envs: [[0], [1]]\nalgorithms: [Slow]\n")
    first = folders(file)

    process = start(file, first.values())
    workers = owners(first.values())
    process.kill()
    assert ended(process) == -signal.SIGKILL
    for folder in first.values():
        wait_for(lambda folder=folder: is_free(folder))
    wait_for(lambda: not any(map(alive, workers)))

    process = start(file, first.values())
    workers = owners(first.values())
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the whole group
    wait_for(lambda: "Interrupted: " in (tmp_path / "errors.txt").read_text(), process)
    assert all(is_free(folder) for folder in first.values())
    assert ended(process) == 130
    err = (tmp_path / "errors.txt").read_text()
    assert "0 of 2 runs are done (0 now)" in err
    told = "Interrupted: active runs saved a checkpoint. Start the same command again to continue."
    assert told in " ".join(err.split())
    assert "Traceback" not in err
    assert not any(map(alive, workers))
    steps = [torch.load(folder / "checkpoint.pt", weights_only=True)["step"] for folder in first.values()]
    assert all(1 < step < 80 for step in steps)

    (tmp_path / "hurry").touch()
    assert sweep_run(file) == 0
    assert "2 of 2 runs are done (2 now)" in capsys.readouterr().err
    assert_undisturbed(file)

    shutil.rmtree(first["Slow1"])
    assert main(["table", str(tmp_path / "results")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Slow +\d+\.\d +X", re.sub(r" \+/- \d+\.\d", "", out))
    assert "noto" in out[out.lower().index("missing") :]


def start(file, active):
    """A sweep in a process of its own; returns when each of its runs has done some steps since now."""
    began = time.time()
    words = ["sweep", "run", file, "--output_dir", file.parent / "results", *ONE_THREAD_EACH]
    process = command(words, file.parent / "errors.txt")
    for folder in active:
        note = folder / "progress.json"
        wait_for(lambda note=note: note.exists() and note.stat().st_mtime > began, process)
    return process


def owners(run_folders):
    """Processes that own these folders."""
    return [int(re.match(r"process (\d+) on ", (folder / "lock").read_text())[1]) for folder in run_folders]


def is_free(folder):
    try:
        with RunFolder(folder).locked():
            return True
    except UserError:
        return False


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_sigterm_interrupts_like_ctrl_c(write_sweep, tmp_path, monkeypatch, in_main_thread):
    """A scheduler sends it. Only the main thread may catch signals; elsewhere a sweep runs all the same."""
    runs, handler, outcomes = (
        read_sweep(write_sweep("algorithms: [ERM]\n")).runs(),
        signal.getsignal(signal.SIGTERM),
        [],
    )

    def attempt(left, *args):
        if in_main_thread:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        return []

    monkeypatch.setattr(local, "_attempt", attempt)
    thread = threading.Thread(target=lambda: outcomes.append(run_missing(runs, on_cpu(tmp_path))))
    (thread.run if in_main_thread else thread.start)()
    if not in_main_thread:
        thread.join()
    assert outcomes == [Outcome(0, 0, {}, interrupted=in_main_thread)]
    assert signal.getsignal(signal.SIGTERM) == handler


def test_threads_do_not_depend_on_what_is_missing(write_sweep, tmp_path, monkeypatch):
    """A run that is continued when few others are left sums in the same order as before."""
    runs, threads = read_sweep(write_sweep("algorithms: [ERM]\n")).runs(), []
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(
        local, "_attempt", lambda left, machine, workers, *rest: threads.append((workers.jobs, workers.threads)) or []
    )
    for missing in (4, 2, 1):
        run_missing(runs, on_cpu(tmp_path))
        run_missing(runs, on_cpu(tmp_path), jobs=2)
        for config in runs[missing // 2 : missing]:
            (tmp_path / config.folder_name).mkdir()
            (tmp_path / config.folder_name / "done").touch()
    assert threads == [(4, 2), (2, 4), (2, 2), (2, 4), (1, 2), (1, 4)]


def test_workers_that_always_die(write_sweep, tmp_path, monkeypatch):
    attempts = []
    monkeypatch.setattr(local, "_attempt", lambda left, *rest: attempts.append(len(left)) or list(left))
    runs = read_sweep(write_sweep("algorithms: [ERM]\n")).runs()
    outcome = run_missing(runs, on_cpu(tmp_path))
    assert attempts == [4] * local.FRUITLESS_ATTEMPTS
    assert set(outcome.failed) == {config.folder_name for config in runs}
    assert all("killed" in reason and "out of memory" in reason for reason in outcome.failed.values())


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [
        ("Ghost", "Fenced: the folder belongs to process 7 on elsewhere"),
        ("FillsTheDisk", "No space is left for checkpoint.pt."),
    ],
)
def test_no_further_run_begins(write_sweep, tmp_path, algorithm, reason):
    """Of a ghost, or on a full disk; also none of those that a pool takes in advance."""
    runs = read_sweep(write_sweep(f"steps: 2\nalgorithms: [{algorithm}]\n")).runs()
    outcome = run_missing(runs, on_cpu(tmp_path / "results"), 1)
    assert outcome == Outcome(0, 0, {runs[0].folder_name: reason})
    assert [run.folder_name for run in runs if (tmp_path / "results" / run.folder_name).exists()] == [
        runs[0].folder_name
    ]
    noted = (tmp_path / "results" / runs[0].folder_name / "failed.json").exists()
    assert noted == (algorithm != "Ghost")  # that folder is its successor's


def test_a_plugin_that_fails_in_worker_processes(write_sweep, tmp_path):
    """It is not taken for a process that was killed."""
    runs = read_sweep(write_sweep("steps: 2\ntest_envs: [[0], [1]]\nalgorithms: [ERM]\n")).runs()
    (tmp_path / "unfit").touch()
    outcome = run_missing(runs, on_cpu(tmp_path / "results"), 1)
    assert list(outcome.failed) == [run.folder_name for run in runs]
    assert all(
        "troubled.py could not be loaded: ZeroDivisionError: only in a worker" in text
        for text in outcome.failed.values()
    )
    assert json.loads((tmp_path / "results" / runs[0].folder_name / "failed.json").read_text())["kind"] == "UserError"


def test_a_process_that_does_not_end(write_sweep, tmp_path, monkeypatch):
    """Its run is done; what a plugin has left running in it must not hold the sweep."""
    monkeypatch.setattr(local, "IDLE_S", 1.0)
    runs = read_sweep(write_sweep("steps: 1\ntest_envs: [[0]]\nalgorithms: [Lingers]\n")).runs()
    assert run_missing(runs, on_cpu(tmp_path), 1) == Outcome(1, 0, {})
    wait_for(lambda: not multiprocessing.active_children())


# How many processes, and what each has


def shares(device, jobs=None, per_gpu=1):
    return local._shares(torch.device(device), jobs, per_gpu)


def test_one_process_per_gpu(monkeypatch):
    monkeypatch.setattr(local, "visible", lambda: ["MIG-a", "GPU-b"])
    assert shares("cuda") == (2, ("MIG-a", "GPU-b"))
    assert shares("cuda", per_gpu=2) == (4, ("MIG-a", "GPU-b", "MIG-a", "GPU-b"))
    assert shares("cuda", jobs=3) == (3, ("MIG-a", "GPU-b", "MIG-a"))
    assert shares("cuda", jobs=1) == (1, ("MIG-a",))


def test_processes_on_the_gpu_that_was_named(monkeypatch):
    monkeypatch.setattr(local, "visible", lambda: pytest.fail("nobody asked"))
    assert shares("cuda:1") == (1, ())
    assert shares("cuda:1", per_gpu=2) == (2, ())
    assert shares("cuda:1", jobs=3) == (3, ())


def test_gpus_that_only_torch_sees(monkeypatch):
    monkeypatch.setattr(local, "visible", list)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert shares("cuda") == (2, ("0", "1"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert shares("cuda") == (1, ())


def test_processes_without_a_gpu():
    assert shares("cpu") == (None, ())
    assert shares("cpu", jobs=3) == (3, ())
    assert shares("cpu", per_gpu=2) == (2, ())


def test_a_sweep_on_gpus_asks_for_one_process_each(write_sweep, tmp_path, monkeypatch):
    runs, seen = read_sweep(write_sweep("algorithms: [ERM]\n")).runs(), []
    monkeypatch.setattr(local, "visible", lambda: ["a", "b", "c"])
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda pid: range(64))
    monkeypatch.setattr(local, "_attempt", lambda left, machine, workers, *rest: seen.append(workers) or [])
    run_missing(runs, Machine(output_dir=tmp_path, device=torch.device("cuda")))
    assert (seen[0].jobs, seen[0].threads, seen[0].devices) == (3, 21, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("given", "usable", "cores"), [(None, 8, 8), ("", 8, 8), ("4", 8, 4), ("64", 8, 8), ("8", 8, 8)]
)
def test_cores_are_those_that_slurm_gives_and_the_machine_has(monkeypatch, given, usable, cores):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if given is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda pid: range(usable))
    assert local.available_cores() == cores
