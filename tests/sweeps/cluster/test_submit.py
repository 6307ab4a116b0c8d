"""`sweep launch` without Slurm: on this machine, in this process, and what it says where there is no cluster."""

import json
import time
from types import SimpleNamespace

import pytest
import torch
from helpers import assert_same, run

from domainbed_sage.cli import main
from domainbed_sage.config import Machine
from domainbed_sage.core import files
from domainbed_sage.core.errors import UserError
from domainbed_sage.sweeps.cluster import task
from domainbed_sage.sweeps.cluster.task import Task
from domainbed_sage.sweeps.sweep import read_sweep
from domainbed_sage.training.notes import note_failure

pytestmark = pytest.mark.usefixtures("forget_plugins", "restore_signals")
TEXT = """
name: s
datasets: [EmojiStyles]
algorithms: {SAGE: {rho: 1e-3, gamma: 0.1}}
test_envs: [[0], [1]]
trials: 1
steps: 6
checkpoint_freq: 3
hparams: {width: 8, batch_size: 2}
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")  # threads of every run below
    torch.set_num_threads(1)
    (tmp_path / "s.yaml").write_text(TEXT)
    return tmp_path / "s.yaml"


def launch(sweep, *words):
    folder = sweep.parent / "results"
    return main(["sweep", "launch", str(sweep), "--output_dir", str(folder), "--device", "cpu", *map(str, words)])


def assert_undisturbed(sweep):
    for config in read_sweep(sweep).runs():
        alone = run(config, sweep.parent / "alone" / config.folder_name)
        assert_same(sweep.parent / "results" / config.folder_name, alone)


@pytest.mark.parametrize("words", [("debug",), ("local",), ("local", "--runs-per-gpu", 2)])
def test_on_this_machine(sweep, words, capsys):
    assert launch(sweep, "--cluster", *words) == 0
    assert "2 of 2 runs are done" in capsys.readouterr().err
    assert_undisturbed(sweep)


def test_without_slurm(sweep, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert launch(sweep) == 2
    assert "There is no command scontrol: this is not a machine of a Slurm cluster" in capsys.readouterr().err
    assert not list((sweep.parent / "results").glob("jobs/*"))


def test_jobs_without_a_gpu_are_a_mistake(sweep, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["sweep", "launch", str(sweep), "--output_dir", str(sweep.parent / "results")]) == 2
    assert "would ask for no GPU and train on processors. Say which GPU with --gres" in capsys.readouterr().err


def test_a_full_disk_stops_launches(sweep, capsys):
    assert launch(sweep, "--min-free-gb", 1e9) == 2
    assert "Launching needs 1000000000.0 GB in " in capsys.readouterr().err


def test_status_and_logs_without_slurm(sweep, capsys, monkeypatch):
    launch(sweep, "--cluster", "debug")
    monkeypatch.setenv("PATH", "")
    capsys.readouterr()
    folder = str(sweep.parent / "results")
    assert main(["sweep", "status", str(sweep), "--output_dir", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["done"] == 2
    assert main(["sweep", "logs", str(sweep), "SAGE-env1", "--output_dir", folder, "-n", "2"]) == 0
    shown = capsys.readouterr().out
    assert "SAGE-env1" in shown.splitlines()[0]
    assert "step 5" in shown
    assert main(["sweep", "logs", str(sweep), "SAGE", "--output_dir", folder]) == 2
    assert "should name one run of the sweep. It fits 2; for example: EmojiStyles-SAGE-env0" in capsys.readouterr().err


# The job itself


@pytest.fixture
def job(sweep, tmp_path):
    return Task(read_sweep(sweep).runs(), Machine(output_dir=tmp_path / "results"), at_once=1)


def test_a_job_without_the_gpu_it_asked_for(job):
    job.wants_gpu = True
    with pytest.raises(UserError, match=r"asked Slurm for a GPU, and PyTorch finds none .*--device cpu"):
        job()


def test_a_job_on_a_full_disk_starts_nothing(job, tmp_path, monkeypatch):
    job.min_free_gb = 5
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000_000))
    with pytest.raises(UserError, match=r"This job needs 5.0 GB in .*Found 1.0 GB free"):
        job()
    assert not list((tmp_path / "results").glob("*/run.json"))


def test_a_job_does_its_runs_and_a_finished_one_nothing(job, sweep):
    assert job() == "2 runs done, 0 were done before"
    assert job() == "0 runs done, 2 were done before"
    assert_undisturbed(sweep)


def test_a_job_with_failures_is_a_failed_job(job, sweep, tmp_path):
    first, second = job.runs
    (tmp_path / "results" / first.folder_name).mkdir(parents=True)
    (tmp_path / "results" / first.folder_name / "results.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=rf"1 of 2 runs failed:\n{first.folder_name}: .*no run.json"):
        job()
    assert (tmp_path / "results" / second.folder_name / "done").exists()


def test_a_job_that_cannot_start_says_why_in_every_run(job, sweep, capsys):
    job.wants_gpu = True
    with pytest.raises(UserError):
        job()
    folder = str(sweep.parent / "results")
    main(["sweep", "status", str(sweep), "--output_dir", folder])
    assert "2 failed: This job asked Slurm for a GPU" in capsys.readouterr().out
    job.wants_gpu = False
    job()
    assert_undisturbed(sweep)


def test_a_run_that_failed_in_this_job_is_not_tried_again_by_it(job, tmp_path, monkeypatch):
    first = tmp_path / "results" / job.runs[0].folder_name
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    note_failure(first, "UserError", "the weights are not finite")
    assert job() == "1 runs done, 0 were done before"
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert job() == "1 runs done, 1 were done before"
    assert not (first / "failed.json").exists()


def test_checkpoint_waits_for_the_runs_but_not_for_ever(job):
    job.grace_s = 0.2
    slow = task._Job(lambda: time.sleep(30))
    slow.start()
    task._running.append(slow)
    try:
        began = time.monotonic()
        assert job.checkpoint().function == job
        assert slow.stop.is_set()
        assert 0.2 <= time.monotonic() - began < 10
    finally:
        task._running.remove(slow)


def test_checkpoint_is_the_same_job_again(job):
    assert job.checkpoint().function == job
    assert task._running == []
