"""Which runs on several tasks share a table, and which of it are missing."""

import re
import shutil

import pytest
from task_records import metrics, write, write_some

from domainbed_sage.cli import main
from domainbed_sage.results import planned, task_runs, task_tables


@pytest.fixture
def results(tmp_path):
    write_some(tmp_path)
    return tmp_path


def test_planned_runs_without_a_record_are_named(results, capsys):
    run = {"test_envs": (1,), "steps": 1, "algorithm": "ERM"}
    rows = [("sage", "Ours", "Rooms", 0), ("gone", "Ours", "Rooms", 1), ("lost", "Sum", "Rooms", 0)]
    rows += [("begun", "Sum", "Rooms", 1), ("other", "Ours", "NYUv2", 2), ("domains", "ERM", "PACS", 0)]
    runs = (planned.PlannedRun(name, label, data, trial_seed=trial, **run) for name, label, data, trial in rows)
    planned.write(results, "s", planned.Plan("x", tuple(runs)))
    write(results, "begun", metrics(1.0, 1.0), done=False)
    assert [run.folder_name for run in task_runs.load(results).missing] == ["gone", "lost", "other"]
    assert main(["table", str(results)]) == 0
    assert "Missing, by row and trial: 2 (Ours 1, Sum 0)." in capsys.readouterr().out
    assert main(["table", str(results), "--algorithms", "Ours"]) == 0
    assert "Missing, by row and trial: 1 (Ours 1)." in capsys.readouterr().out
    only = task_runs.only(task_runs.load(results), None, ["Rooms"])
    assert [run.folder_name for run in only.missing] == ["gone", "lost"]


def test_a_finished_run_has_a_record_of_its_last_step(results):
    for name, kept in (("ls0", 1), ("ls1", 0)):
        path = results / name / "results.jsonl"
        line = path.read_text().replace('"args": {', '"args": {"steps": 2, ')
        path.write_text((line + '{"torn') * kept)
    found = task_runs.load(results)
    assert "ls0/results.jsonl is of a finished run, but its last record is of step 0. Delete" in found.unreadable[0]
    assert "ls1/results.jsonl is of a finished run, but it has no record." in found.unreadable[1]
    assert len(found.runs) == 5


def test_trials_of_single_tasks_are_those_of_the_task_with_the_fewest(results):
    shutil.rmtree(results / "dep1")
    (table,) = task_tables.build(task_runs.load(results))
    assert table.trials["STL"] == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"solver": "UW"}, ""),
        ({"trial": 2}, ""),
        ({}, "ls0 and .*more are both trial 0 of the row ERM-LS on Rooms"),
        ({"only_task": "seg", "solver": "UW"}, "more and .*seg0 are both trial 0 of the row of seg alone on Rooms"),
        ({"trial": 2, "hparams": {"lr": 0.1}}, ""),
        ({"trial": 2, "hparams": {"lr": 0.1}, "dataset": "NYUv2"}, ""),
        (
            {"trial": 2, "hparams": {"width": 2}},
            "ls0 has width 1, and .*more has width 2: both are of the row ERM-LS on Rooms, and trials of a row may",
        ),
        ({"trial": 2, "settings": {"model": "other"}}, "ls0 has model 'one', and .*more has model 'other'"),
        ({"trial": 2, "variant": "other"}, "dep0 ran on '5 train, 3 test' of Rooms, and .*more on 'other'"),
    ],
)
def test_only_one_run_for_each_trial_of_a_row_all_alike_and_on_the_same_data(results, capsys, changed, message):
    write(results, "more", metrics(1.0, 1.0), **changed)
    assert main(["table", str(results), "--out", str(results / "out")]) == (2 if message else 0)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert (results / "out").exists() != bool(message)
