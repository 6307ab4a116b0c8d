"""Which folders are runs on several tasks, and what is read of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from reference import sweep_folder
from task_records import metrics, write

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import task_runs


def of_domains(folder, name="PACS-ERM-0"):
    """A finished run of domain generalization."""
    sweep_folder.write_flat(folder, [0.96, 0.964], dataset=name.partition("-")[0])


def test_kinds_of_runs(tmp_path):
    assert task_runs.kinds(tmp_path / "nothing") == {False}
    (tmp_path / "Rooms-torn").mkdir()
    (tmp_path / "Rooms-torn" / "results.jsonl").write_text('{"args": {"ta')
    assert task_runs.kinds(tmp_path) == {False}
    write(tmp_path, "Rooms-x", {"test_seg_miou": [1.0]})
    (tmp_path / "plots-old").mkdir()
    assert task_runs.kinds(tmp_path) == {True}, "what has no records is of no kind"
    assert "Rooms-torn" in task_runs.load(tmp_path).unfinished
    of_domains(tmp_path)
    assert task_runs.kinds(tmp_path) == {True, False}
    found = task_runs.load(tmp_path)
    assert [run.name for run in found.runs] == ["Rooms-x"]
    assert found.unfinished == (), "what cannot be read is told of with the other runs"


def test_one_run_of_each_dataset_is_opened(tmp_path, monkeypatch):
    for name in ("Rooms-a", "Rooms-b", "NYUv2-a", "NYUv2-b", "one", "two"):
        write(tmp_path, name, metrics(1.0, 1.0))
    opened, look = [], task_runs.on_tasks
    monkeypatch.setattr(task_runs, "on_tasks", lambda run: opened.append(run.name) or look(run))
    assert task_runs.kinds(tmp_path) == {True}
    assert opened == ["NYUv2-a", "Rooms-a", "one"]


def test_a_file_that_cannot_be_opened_is_of_no_kind(tmp_path, monkeypatch):
    write(tmp_path, "Rooms-a", metrics(1.0, 1.0))

    def refused(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "open", refused)
    assert task_runs.on_tasks(tmp_path / "Rooms-a") is None


def test_only_a_file_says_that_a_run_is_done(tmp_path):
    write(tmp_path, "ls", metrics(1.0, 1.0), done=False)
    assert (task_runs.load(tmp_path).runs, task_runs.load(tmp_path).unfinished) == ((), ("ls",))
    (tmp_path / "ls" / "done").mkdir()
    with pytest.raises(UserError, match=r"done should be a file\. Found a folder"):
        task_runs.load(tmp_path)


def test_the_trivial_predictor_is_that_of_the_last_record(tmp_path):
    for step, value in ((0, 10.0), (1, 20.0)):
        write(tmp_path / str(step), "ls", {"test_seg_miou": [1.0]}, trivial={"test_seg_miou": value})
    lines = [(tmp_path / str(step) / "ls" / "results.jsonl").read_text() for step in (0, 1)]
    (tmp_path / "0" / "ls" / "results.jsonl").write_text(lines[0] + lines[1].replace('"step": 0', '"step": 1'))
    (run,) = task_runs.load(tmp_path / "0").runs
    assert run.trivial == {"test_seg_miou": 20.0}


def test_a_part_of_the_runs(tmp_path):
    """Those for one task alone belong to the row STL whatever they are called, and stay with their dataset."""
    write(tmp_path, "alone", {"test_seg_miou": [1.0]}, only_task="seg", solver="UW")
    write(tmp_path, "ls", metrics(1.0, 1.0))
    whole = task_runs.load(tmp_path)
    whole = replace(whole, runs=(*whole.runs, *(replace(run, dataset="NYUv2") for run in whole.runs)))
    for datasets, expected in ((None, 4), (["NYUv2"], 2), (["Rooms", "NYUv2"], 4)):
        assert len(task_runs.only(whole, None, datasets).runs) == len(task_runs.only(whole, ["ERM-LS"], datasets).runs)
        assert len(task_runs.only(whole, ["ERM-LS"], datasets).runs) == expected
    with pytest.raises(UserError, match=r"have no row 'ERM-UW'. Known: ERM-LS\."):
        task_runs.only(whole, ["ERM-UW"], None)


@pytest.mark.parametrize("change", [{"hparams": None}, {"data": 3}, {"higher_is_better": {"test_seg_miou": 1, "x": 1}}])
def test_records_that_lack_something_are_unreadable(tmp_path, change):
    write(tmp_path, "ls", {"test_seg_miou": [1.0]})
    write(tmp_path, "uw", {"test_seg_miou": [1.0]})
    path = tmp_path / "ls" / "results.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    found = task_runs.load(tmp_path)
    assert ([run.name for run in found.runs], len(found.unreadable)) == (["uw"], 1)
    assert found.unreadable[0].startswith(str(path))


@pytest.mark.parametrize("value", [True, "3"])
def test_what_is_no_number_is_named_with_its_step(tmp_path, value):
    write(tmp_path, "x", {"test_seg_miou": [1.0, value]})
    (reason,) = task_runs.load(tmp_path).unreadable
    assert reason == f"test_seg_miou at step 1 should be a number. Found {value!r}."
