"""Where a sweep stands, from its folders and a queue that is made up, and how that is shown in 80 columns."""

import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from helpers import hold_lock, wait_for
from rich.console import Console

from domainbed_sage.cli import status
from domainbed_sage.cli.status import time_left
from domainbed_sage.core import limits
from domainbed_sage.core.errors import UserError
from domainbed_sage.results.failures import advice
from domainbed_sage.sweeps.cluster import ledger, slurm
from domainbed_sage.sweeps.cluster.ledger import Array
from domainbed_sage.sweeps.cluster.slurm import QueuedJob
from domainbed_sage.sweeps.cluster.survey import RunState, Survey, survey
from domainbed_sage.sweeps.planning import entry
from domainbed_sage.sweeps.sweep import Sweep
from domainbed_sage.training.notes import note_failure

SWEEP = Sweep(name="s", datasets={"EmojiStyles": None}, algorithms={"ERM": {}, "SAGE": {}}, trials=1)


@pytest.fixture
def runs():
    return [entry(planned) for planned in SWEEP.planned()]


@pytest.fixture
def queue(monkeypatch):
    """Jobs that squeue would show, and states that sacct would."""
    jobs, ended = {}, {}
    monkeypatch.setattr(slurm, "queue", lambda names: dict(jobs))
    monkeypatch.setattr(slurm, "accounts", lambda ids: {job: ended[job] for job in ids if job in ended})
    return jobs, ended


def begin(results, run, **note):
    folder = results / run.folder_name
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    if note:
        (folder / "progress.json").write_text(json.dumps(note))
    return folder


def finish(results, run):
    (begin(results, run) / "done").write_text("done")


def submit(results, runs, jobs, name="array", known=True):
    ids = tuple(f"7_{i}" for i in range(len(jobs)))
    array = Array(name, tuple(tuple(run.folder_name for run in task) for task in jobs), ids if known else ())
    ledger.write(results, array)
    return array


def states(runs, results, **options):
    return [run.state for run in survey(runs, results, **options).runs]


def test_nothing_yet(runs, tmp_path):
    assert states(runs, tmp_path / "nowhere") == ["missing"] * 8
    assert not (tmp_path / "nowhere").exists()


def test_every_state(runs, tmp_path, queue):
    jobs, ended = queue
    submit(tmp_path, runs, [[runs[0], runs[1]], [runs[2]], [runs[3]], [runs[4]], [runs[5]]])
    jobs["7_0"] = QueuedJob("7_0", "RUNNING", "array", "node1")
    jobs["7_1"] = QueuedJob("7_1", "PENDING", "array", "(Resources)")
    ended |= {"7_2": "OUT_OF_MEMORY", "7_4": "CANCELLED"}
    begin(tmp_path, runs[0], step=10, seconds_per_step=2.0)
    begin(tmp_path, runs[2], step=5)  # begun and preempted: it waits again
    begin(tmp_path, runs[3])  # killed
    note_failure(begin(tmp_path, runs[4]), "UserError", "loss of ERM is not finite at step 3")
    finish(tmp_path, runs[6])
    found = survey(runs, tmp_path)
    expected = ["running", "queued", "queued", "failed", "failed", "missing", "done", "missing"]
    assert [run.state for run in found.runs] == expected
    assert (found.jobs, found.waiting) == (2, {"Resources": 1})
    killed, diverged = found.runs[3:5]
    assert (killed.kind, killed.lost, killed.job) == ("OUT_OF_MEMORY", True, "7_2")
    assert (diverged.kind, diverged.lost, diverged.reason) == (
        "UserError",
        False,
        "loss of ERM is not finite at step 3",
    )
    assert found.runs[0].progress["step"] == 10


def test_a_run_is_queued_again_after_its_first_job_was_lost(runs, tmp_path, queue):
    jobs, _ = queue
    begin(tmp_path, runs[0])
    submit(tmp_path, runs, [[runs[0]]], "first")
    assert states(runs[:1], tmp_path) == ["failed"]
    ledger.write(tmp_path, Array("second", ((runs[0].folder_name,),), ("8_0",)))
    jobs["8_0"] = QueuedJob("8_0", "PENDING", "second", "(Priority)")
    assert states(runs[:1], tmp_path) == ["queued"]
    jobs["8_0"] = QueuedJob("8_0", "RUNNING", "second", "node1")
    assert states(runs[:1], tmp_path) == ["running"]


def test_jobs_whose_ids_the_launcher_did_not_live_to_note(runs, tmp_path, queue):
    jobs, _ = queue
    submit(tmp_path, runs, [[runs[0]], [runs[1]]], known=False)
    assert states(runs[:2], tmp_path) == ["missing", "missing"]  # sbatch was never called
    jobs["9_1"] = QueuedJob("9_1", "PENDING", "array", "(Priority)")
    assert states(runs[:2], tmp_path) == ["missing", "queued"]


def test_a_run_of_this_machine(runs, tmp_path):
    folder = begin(tmp_path, runs[0], step=3)
    process = hold_lock(folder)
    wait_for(lambda: states(runs[:1], tmp_path) == ["running"], process)
    process.kill()
    process.join()
    (found,) = survey(runs[:1], tmp_path).runs
    assert (found.state, found.lost, found.reason) == ("failed", True, "it was stopped, or killed")


def test_without_an_answer_of_slurm(runs, tmp_path, monkeypatch):
    def silent(names):
        raise UserError("squeue has not answered within 60 s.")

    monkeypatch.setattr(slurm, "queue", silent)
    submit(tmp_path, runs, [[run] for run in runs])
    begin(tmp_path, runs[0])
    finish(tmp_path, runs[1])
    note_failure(begin(tmp_path, runs[2]), "E", "reason")
    found = survey(runs, tmp_path, patient=True)
    assert [run.state for run in found.runs] == ["queued", "done", "failed", *["queued"] * 5]
    assert "has not answered" in render("s", tmp_path, found, runs)
    with pytest.raises(UserError, match="has not answered"):
        survey(runs, tmp_path)


def test_finished_runs_are_not_looked_at_again(runs, tmp_path, monkeypatch):
    for run in runs[:3]:
        finish(tmp_path, run)
    assert states(runs, tmp_path).count("done") == 3
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda path: pytest.fail(f"looked at {path}"))
        assert states(runs[:3], tmp_path) == ["done"] * 3


def test_folders_that_changed_are_looked_at_again(runs, tmp_path):
    for run in runs[:3]:
        finish(tmp_path, run)
    assert states(runs, tmp_path).count("done") == 3
    shutil.rmtree(tmp_path / runs[0].folder_name)
    (tmp_path / runs[1].folder_name / "done").unlink()
    assert states(runs[:3], tmp_path) == ["missing", "failed", "done"]


def test_of_the_runs_of_one_job_one_trains(runs, tmp_path, queue):
    jobs, _ = queue
    submit(tmp_path, runs, [runs[:4]])
    jobs["7_0"] = QueuedJob("7_0", "RUNNING", "array", "node1")
    for run in runs[:3]:
        begin(tmp_path, run, step=3)
    os.utime(tmp_path / runs[0].folder_name / "progress.json", (0, 0))  # stopped long ago, waits for the next start
    (tmp_path / runs[2].folder_name / "progress.json").unlink()
    process = hold_lock(tmp_path / runs[2].folder_name)
    assert states(runs[:4], tmp_path) == ["queued", "running", "running", "queued"]
    process.kill()
    process.join()


def test_habits_of_the_user_hide_no_jobs(monkeypatch, tmp_path):
    program = tmp_path / "squeue"
    program.write_text('#!/bin/sh\necho "1_0|PENDING|$SQUEUE_STATES-${1#--}|(Priority)"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    assert slurm.queue(["a"]) == {"1_0": QueuedJob("1_0", "PENDING", "-all", "(Priority)")}


def test_slurm_that_fails_or_is_silent(monkeypatch, tmp_path):
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UserError, match="failed: slurm_load_jobs error: Unable to contact slurm controller"):
        slurm.queue(["a"])
    program.write_text("#!/bin/sh\nsleep 5\n")
    monkeypatch.setattr(slurm, "WAIT_S", 0.2)
    with pytest.raises(UserError, match="squeue has not answered within 0 s"):
        slurm.queue(["a"])


@pytest.mark.parametrize("content", ["{", "[]", "3", "[" * 100_000])
def test_index_that_is_damaged(runs, tmp_path, content):
    finish(tmp_path, runs[0])
    (tmp_path / "index.json").write_text(content)
    assert states(runs[:1], tmp_path) == ["done"]
    assert set(json.loads((tmp_path / "index.json").read_text())) == {runs[0].folder_name}


def test_index_that_cannot_be_written(runs, tmp_path):
    """A reader of somebody else's results sees them all the same."""
    finish(tmp_path, runs[0])
    (tmp_path / "index.json").mkdir()
    assert states(runs[:1], tmp_path) == ["done"]
    assert list((tmp_path / "index.json").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        "[" * 100_000,
        '{"tasks": 3, "ids": [], "when": 1, "name": "a"}',
        '{"tasks": [], "ids": [], "when": "x", "name": "a"}',
        '{"tasks": [], "ids": [], "when": 1}',
        '{"tasks": [], "ids": [], "when": 1, "name": "a", "other": 1}',
        '{"tasks": [], "ids": [], "when": 1, "name": 7}',
        '{"tasks": [[7]], "ids": [], "when": 1, "name": "a"}',
        '{"tasks": [["run"]], "ids": ["1_0", "1_1"], "when": 1, "name": "a"}',
        '{"tasks": [], "ids": [], "when": 1, "name": "a", "host": null}',
        '{"tasks": [], "ids": [], "when": %s, "name": "a"}' % ("9" * 400),
        '{"tasks": [], "ids": [], "when": 1, "name": "a", "name": "b"}',
        b"\xff",
    ],
)
def test_damaged_ledger_says_what_to_do(runs, tmp_path, content):
    submit(tmp_path, runs, [[runs[0]]])
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / "jobs" / "array" / "array.json").write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged .* Look for jobs named array in squeue, cancel them, and remove"):
        survey(runs, tmp_path)


# What is shown


def render(*what, width=80):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(status.render(*what))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_names_use_the_width_that_there_is(tmp_path):
    label = "SAGE_without_noise_and_with_a_very_long_label"
    found = Survey((RunState("r", "TerraIncognita", label, "done"),))
    assert label in render("s", tmp_path, found, [], width=120)
    narrow = render("s", tmp_path, found, [], width=80).splitlines()
    assert max(map(len, narrow[1:])) <= 80
    assert any("SAGE_without" in line and "…" in line for line in narrow)


def many():
    """1,122 runs of 17 algorithms in mixed states."""
    algorithms = [f"Algorithm{i}" for i in range(17)]
    found = []
    for dataset, envs in (("PACS", 4), ("VLCS", 4), ("OfficeHome", 4), ("TerraIncognita", 4), ("DomainNet", 6)):
        for number, algorithm in enumerate(algorithms):
            for i in range(3 * envs):
                state = ("done", "running", "queued", "failed", "missing")[min(4, (i * number) // 10)]
                failure = {"kind": "OUT_OF_MEMORY", "reason": "its job ended without a word", "lost": True}
                extra = failure if state == "failed" else {}
                found.append(RunState(f"{dataset}-{algorithm}-{i}", dataset, algorithm, state, **extra))
    return Survey(tuple(found), 9, {"Resources": 7, "QOSMaxGRESPerUser": 2})


def test_eighty_columns(tmp_path):
    found = many()
    text = render("table1", tmp_path, found, [])
    assert len(found.runs) == 1122
    table = text.split("\n\n")[0].splitlines()[1:]
    assert max(map(len, table)) <= 80
    assert sum(line.startswith("TerraIncognita ") for line in table) == 1
    assert "Jobs wait: 7 Resources, 2 QOSMaxGRESPerUser" in text
    assert re.search(r"\n\d+ failed: OUT_OF_MEMORY: its job ended without a word\n", text)


def test_bar_and_numbers_agree(tmp_path):
    runs = [RunState(f"r{i}", "PACS", "ERM", s) for i, s in enumerate(["done"] * 5 + ["running"] * 3 + ["missing"] * 2)]
    line = next(row for row in render("s", tmp_path, Survey(tuple(runs)), []).splitlines() if row.startswith("PACS"))
    assert line.split()[2] == "█" * 10 + "▓" * 6 + "·" * 4
    assert line.split()[3:] == ["5", "3", "2"]


def test_failures_of_one_cause_stand_together(tmp_path):
    log = tmp_path / "err.txt"
    log.write_text("first\nsecond\nthird\nlast line\n")
    runs = [
        RunState(
            f"r{i}", "PACS", a, "failed", kind="UserError", reason=f"loss is not finite at step {i} of {a}", log=log
        )
        for i, a in enumerate(("SAM", "SAM", "SAGE"))
    ]
    runs.append(RunState("r3", "PACS", "SAM", "failed", kind="RuntimeError", reason="RuntimeError: CUDA error"))
    text = render("s", tmp_path, Survey(tuple(runs)), [])
    assert "3 failed: loss is not finite at step 0" in text
    assert "    | last line" in text
    assert "| first" not in text
    assert "1 failed: RuntimeError: CUDA error" in text


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        ("OUT_OF_MEMORY", "", "--mem-gb"),
        ("OutOfMemoryError", "CUDA out of memory", "slice"),
        ("UserError", f"{limits.GPU_MEMORY.meaning} (CUDA out of memory)", "slice"),
        ("UserError", f"{limits.MEMORY.meaning} (MemoryError)", "--mem-gb"),
        ("UserError", f"{limits.KILLED.meaning} (ended by SIGKILL)", "--mem-gb"),
        ("UserError", f"{limits.SHARED_MEMORY.meaning} (No space left on device)", "what the message says"),
        ("UserError", f"{limits.OPEN_FILES.meaning} (x). {limits.OPEN_FILES.advice}", "what the message says"),
        ("UserError", f"{limits.TEMPORARY.meaning} (x). {limits.TEMPORARY.advice}", "what the message says"),
        ("NoSpace", "No space is left for x", "free space"),
        ("UserError", "The weights of SAM are not finite after step 3", "diverged"),
        ("TIMEOUT", "", "--signal-delay-s"),
        ("NODE_FAIL", "", "launch again"),
        ("UserError", "get it with domainbed-sage weights download openai", "get what the message names"),
        ("KeyError", "KeyError: 'x'", "sweep logs"),
    ],
)
def test_advice(kind, reason, words):
    assert words in advice(RunState("r", "d", "a", "failed", kind=kind, reason=reason))


def test_time_left():
    """Two runs at a time: 50 and 90 steps of the active ones at 1 s and 2 s, and 100 waiting ones at 1.5 s."""
    runs = SWEEP.runs()[:3]
    steps = runs[0].steps
    named = [(run.folder_name, run.algorithm) for run in runs]
    found = Survey(
        (
            RunState(named[0][0], "d", "A", "running", progress={"step": steps - 50, "seconds_per_step": 1.0}),
            RunState(named[1][0], "d", "B", "running", progress={"step": steps - 90, "seconds_per_step": 2.0}),
            RunState(named[2][0], "d", "C", "missing"),
        )
    )
    assert time_left(found, runs) == pytest.approx((50 + 180 + 1.5 * steps) / 2)
    assert time_left(Survey(found.runs[2:]), runs) is None


def test_json_is_complete(runs, tmp_path, capsys):
    finish(tmp_path, runs[0])
    facts = json.loads(status.as_json(survey(runs, tmp_path)))
    assert facts["counts"] == {"done": 1, "running": 0, "queued": 0, "failed": 0, "missing": 7}
    assert {run["name"] for run in facts["runs"]} == {run.folder_name for run in runs}


@pytest.mark.parametrize(
    "note", ['{"step": "x", "steps": null, "seconds_per_step": [1]}', '{"seconds_per_step": NaN}', "[3]", "9" * 5000]
)
def test_a_note_of_nonsense_does_no_harm(runs, tmp_path, queue, note):
    submit(tmp_path, runs, [[runs[0]]])
    queue[0]["7_0"] = QueuedJob("7_0", "RUNNING", "array", "node1")
    (begin(tmp_path, runs[0]) / "progress.json").write_text(note)
    found = survey(runs, tmp_path)
    assert found.runs[0].state == "running"
    assert "hours left" not in render("s", tmp_path, found, runs)


def test_done_is_a_file(runs, tmp_path):
    (begin(tmp_path, runs[0]) / "done").mkdir()
    with pytest.raises(UserError, match=r"done should be a file\. Found a folder\. Move it away"):
        survey(runs, tmp_path)
