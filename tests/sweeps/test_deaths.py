"""Every way in which a run with loader processes can die: it ends, with the reason, and the next run begins.

The limits of time are such that only a process that never ends can reach them.
"""

import re
import shutil
from pathlib import Path

import pytest
from helpers import _start, command, ended, on_cpu

from domainbed_sage.core import limits
from domainbed_sage.sweeps.cluster.task import Task
from domainbed_sage.sweeps.sweep import read_sweep
from domainbed_sage.training import train

pytestmark = pytest.mark.usefixtures("forget_plugins")

DEATHS = {
    "Step": limits.GPU_MEMORY.meaning,
    "OddStep": "one, two and three",
    "Damaged": "dog.jpg cannot be decoded as an image. Restore it.",
    "Evaluation": "dog.jpg cannot be decoded as an image. Restore it.",
    "Odd": "OddError: this and that",
    "Killed": f"{limits.KILLED.meaning} (A loader process was ended by SIGKILL)",
    "Full": f"{limits.SHARED_MEMORY.meaning} (unable to allocate shared memory",
    "Files": limits.OPEN_FILES.meaning,
    "Temporary": f"{limits.TEMPORARY.meaning} (AF_UNIX path too long",
}
HANGS_S = 120
SWEEP = """
name: s
plugins: [deadly.py]
algorithms: [Mortal]
hparams: {width: 8, batch_size: 2}
test_envs: [[0]]
trials: 1
steps: 4
checkpoint_freq: 3
"""


@pytest.fixture
def sweep(tmp_path):
    """A sweep of one run for each death, and a last one that lives."""
    shutil.copy(Path(__file__).parents[1] / "deadly.py", tmp_path)
    (tmp_path / "s.yaml").write_text(f"{SWEEP}datasets: [{', '.join(DEATHS)}, Alive]\n")
    return tmp_path / "s.yaml"


def runs_of(sweep):
    return {run.dataset: run for run in read_sweep(sweep).runs()}


def assert_told(text, runs, sign):
    """Each run that died is named, with the reason beside it."""
    for death, reason in DEATHS.items():
        assert re.search(sign.format(runs[death].folder_name) + re.escape(reason), text), text


@pytest.mark.parametrize("death", DEATHS)
def test_train(sweep, tmp_path, death):
    words = ["train", "--plugin", tmp_path / "deadly.py", "--dataset", death, "--algorithm", "Mortal", "--steps", 4]
    words += ["--checkpoint_freq", 3, "--num_workers", 2, "--device", "cpu", "--output_dir", tmp_path / "run"]
    process = command([*words, "--hparams", '{"width": 8, "batch_size": 2}'], tmp_path / "errors.txt")
    status = ended(process, HANGS_S)
    errors = (tmp_path / "errors.txt").read_text()
    if death == "Odd":  # of its own kind: a fault in somebody's code, with the stack trace from the loader process
        assert status == 1
        assert errors.rstrip().rpartition("\nIn another process:")[0].endswith(DEATHS[death])
    else:
        assert status == 2
        assert f"error: {DEATHS[death]}" in errors
        assert "Traceback" not in errors


def test_sweep(sweep, tmp_path):
    words = ["sweep", "run", sweep, "--output_dir", tmp_path / "results", "--device", "cpu", "--num_workers", 2]
    assert ended(command([*words, "--jobs", 1], tmp_path / "errors.txt"), HANGS_S) == 1
    errors = (tmp_path / "errors.txt").read_text()
    assert f"1 of {len(DEATHS) + 1} runs are done (1 now)" in errors
    assert f"{len(DEATHS)} failed" in errors
    assert_told(errors, runs_of(sweep), sign=r"  {}\n    ")
    assert (tmp_path / "results" / runs_of(sweep)["Alive"].folder_name / "done").exists()
    assert "Traceback" not in errors


def _task(sweep, results, told):
    task = Task(read_sweep(sweep).runs(), on_cpu(results, num_workers=2), device_given=True)
    try:
        task()
    except train.UserError as error:
        told.write_text(str(error))


def test_job_of_slurm(sweep, tmp_path):
    assert ended(_start(_task, sweep, tmp_path / "results", tmp_path / "told.txt"), HANGS_S) == 0
    told = (tmp_path / "told.txt").read_text()
    assert told.startswith(f"{len(DEATHS)} of {len(DEATHS) + 1} runs failed:\n")
    assert_told(told, runs_of(sweep), sign=r"\n{}: ")
    assert (tmp_path / "results" / runs_of(sweep)["Alive"].folder_name / "done").exists()
