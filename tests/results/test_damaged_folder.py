"""One damaged run, or a damaged plan, does not stop the table of all others, and is named."""

import argparse
import json
import logging

import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.cli import table as table_command
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import record_cache, tables
from domainbed_sage.results.folder import load_records

GARBAGE = "not JSON"


def write(folder, env, steps=None, done=True, evaluations=3):
    lines = sweep_folder.records([[0.5, 0.9]] * evaluations, [[0.5, 0.5]] * evaluations, test_envs=[env])
    for line in lines:
        line["args"]["steps"] = steps
    return sweep_folder.write(folder, lines, name=f"run{env}", done=done) / "results.jsonl"


def with_garbage(path):
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, GARBAGE, *rest]) + "\n")


@pytest.fixture
def damaged(tmp_path):
    write(tmp_path, 0)
    with_garbage(write(tmp_path, 1))
    return tmp_path


def command(folder):
    parser = argparse.ArgumentParser()
    table_command.add_arguments(parser)
    return table_command.main(parser.parse_args([str(folder)]))


def test_one_unreadable_run_is_left_out_and_named(damaged, capsys):
    loaded = load_records(damaged)
    assert [run.name for run in loaded.records] == ["run0"]
    ((name, reason),) = loaded.unreadable
    assert name == "run1"
    assert "results.jsonl, line 2, is not a JSON object" in reason
    assert command(damaged) == 1
    printed = capsys.readouterr()
    assert "50.0" in printed.out
    assert "Left out, unreadable: 1 (run1)." in printed.out
    assert reason in printed.err
    assert "Left out, unreadable: 1 (run1)." in (damaged / "table.md").read_text()


def test_a_sound_folder_has_status_zero(tmp_path, capsys):
    write(tmp_path, 0)
    assert command(tmp_path) == 0
    assert not capsys.readouterr().err


def test_a_notebook_is_warned(damaged, caplog):
    with caplog.at_level(logging.WARNING):
        frame = dg.load_results(damaged)
    (message,) = caplog.messages
    assert "run1/results.jsonl, line 2, is not a JSON object" in message
    assert set(frame["run"]) == {"run0"}
    assert "Left out, unreadable: 1 (run1)." in dg.table(frame).footer


def test_when_all_are_unreadable(damaged):
    with_garbage(damaged / "run0" / "results.jsonl")
    with pytest.raises(UserError, match=r"(?s)No run in .* can be read:\n.*run0.*line 2.*\n.*run1.*line 2"):
        load_records(damaged)


def test_records_that_are_no_file(damaged):
    (damaged / "odd" / "results.jsonl").mkdir(parents=True)
    (damaged / "odd" / "done").touch()
    assert [name for name, _ in load_records(damaged).unreadable] == ["odd", "run1"]


def test_unfinished_runs_are_judged_only_if_included(tmp_path):
    write(tmp_path, 0)
    with_garbage(write(tmp_path, 1, done=False))
    assert not load_records(tmp_path).faults
    loaded = load_records(tmp_path, include_unfinished=True)
    assert [name for name, _ in loaded.unreadable] == ["run1"]
    assert loaded.notes() == ["Left out, unreadable: 1 (run1)."]


@pytest.mark.parametrize("with_cache", [False, True])
def test_a_finished_run_ends_with_its_last_step(tmp_path, monkeypatch, with_cache):
    monkeypatch.setattr(record_cache, "MIN_RUNS", 1 if with_cache else 9)
    write(tmp_path, 0, steps=21)
    path = write(tmp_path, 1, steps=21)
    for _ in range(2):
        assert len(load_records(tmp_path).records) == 2
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    for _ in range(2):
        loaded = load_records(tmp_path)
        assert [run.name for run in loaded.records] == ["run0"]
        ((name, reason),) = loaded.unreadable
        assert name == "run1"
        assert "its records end at step 10 in place of 20" in reason
    (path.parent / "done").unlink()
    assert len(load_records(tmp_path, include_unfinished=True).records) == 2


def test_one_step_beyond_the_last_is_as_wrong(tmp_path):
    write(tmp_path, 0, steps=21)
    write(tmp_path, 1, steps=20)
    assert "end at step 20 in place of 19" in load_records(tmp_path).unreadable[0][1]


def test_the_end_of_a_run_of_one_step(tmp_path):
    write(tmp_path, 0, steps=1, evaluations=1)
    write(tmp_path, 1, steps=1, evaluations=2)
    assert [name for name, _ in load_records(tmp_path).unreadable] == ["run1"]


def test_many_runs_read_by_all_processors(damaged, monkeypatch):
    monkeypatch.setattr("domainbed_sage.results.folder.PARALLEL_FROM", 1)
    assert [name for name, _ in load_records(damaged).unreadable] == ["run1"]


def test_a_damaged_plan(tmp_path, capsys, caplog):
    write(tmp_path, 0)
    (tmp_path / "plan.json").write_text("[[")
    assert command(tmp_path) == 1
    printed = capsys.readouterr()
    assert "50.0" in printed.out
    assert "plan.json is unreadable: runs that are missing may not be named" in " ".join(printed.out.split())
    assert "plan.json is not a readable plan" in printed.err
    with caplog.at_level(logging.WARNING):
        frame = dg.load_results(tmp_path)
    assert "plan.json is not a readable plan" in caplog.messages[0]
    assert any("plan.json is unreadable" in note for note in dg.table(frame).footer)
    assert dg.table(tmp_path).missing == dg.table(frame).missing == (("PACS", "ERM", 1, 0),)


def test_a_sound_plan_is_part_of_what_was_read(tmp_path):
    write(tmp_path, 0)
    assert load_records(tmp_path).planned is None
    (tmp_path / "plan.json").write_text(json.dumps([["PACS", "SAGE", [1], 2], ["VLCS", "SAGE", [3], 2]]))
    loaded = load_records(tmp_path)
    assert (loaded.planned, loaded.plan_fault) == ((("PACS", "SAGE", 1, 2), ("VLCS", "SAGE", 3, 2)), "")


def test_a_plan_of_another_dataset_of_that_name(tmp_path, capsys):
    """It would ask for a column that the table does not have."""
    write(tmp_path, 0)
    (tmp_path / "plan.json").write_text(json.dumps([["PACS", "ERM", [2], 0]]))
    assert command(tmp_path) == 1
    printed = capsys.readouterr()
    assert "50.0" in printed.out
    message = "holds out environment 2 of PACS, whose runs have 2 environments"
    assert message in printed.err
    with pytest.raises(UserError, match=message):
        tables.build(load_records(tmp_path).records, "oracle", expected=[("PACS", "ERM", 2, 0)])
