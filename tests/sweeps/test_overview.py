"""The lines of a running sweep: what each run has reached, and when all will be done."""

import json

import pytest
from helpers import small_config

from domainbed_sage.results import planned
from domainbed_sage.sweeps import overview
from domainbed_sage.sweeps.overview import Clock, Overview, duration, names


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still unless it is set."""
    times = [0.0]
    monkeypatch.setattr(overview.time, "monotonic", lambda: times[0])
    return times


def record(run, step, held_out, sources):
    accuracies = {f"env{i}_{split}_acc": sources for i in range(4) for split in ("in", "out")}
    for env in run.test_envs:
        accuracies[f"env{env}_in_acc"] = held_out
    args = {name: getattr(run, name) for name in ("dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed")}
    return json.dumps({"step": step, "args": args, "hparams": {}, **accuracies})


def write(folder, run, *lines):
    (folder / run.folder_name).mkdir(parents=True)
    (folder / run.folder_name / "results.jsonl").write_text("\n".join(lines))


def test_a_finished_run_and_the_time_left(tmp_path, now, capsys):
    """The second evaluation is selected; three equal runs remain for two processes, one of them half done."""
    runs = [small_config(trial_seed=trial) for trial in range(5)]
    write(
        tmp_path, runs[1], record(runs[1], 0, 0.1, 0.2), record(runs[1], 5, 0.639, 0.712), record(runs[1], 9, 0.9, 0.5)
    )
    shown = Overview(tmp_path, runs, runs[1:], rows=2)
    shown.begin(runs[1])
    now[0] = 100.0
    shown.begin(runs[2])
    now[0] = 200.0
    shown.finished(runs[1], "")
    name = f"{runs[1].algorithm}, held out {runs[1].held_out}, trial 1"
    assert capsys.readouterr().out == f"   2/5  {name}: 63.9 (validation 71.2), 3 min; about 4 min left\n"


@pytest.mark.parametrize("text", ["", "{", "[]\n[]", '{"step": 1}', '{"step": 1}\n{"step": 2}'])
def test_a_run_whose_records_cannot_be_read_is_only_done(tmp_path, now, capsys, text):
    run = small_config()
    write(tmp_path, run, text)
    shown = Overview(tmp_path, [run], [run], rows=1)
    shown.begin(run)
    shown.finished(run, "")
    assert capsys.readouterr().out.endswith(f"held out {run.held_out}, trial 0: done, 0 s\n")


def test_a_run_without_records_or_beginning_is_only_done(tmp_path, capsys):
    run = small_config()
    Overview(tmp_path, [run], [run], rows=1).finished(run, "")
    assert capsys.readouterr().out.endswith("trial 0: done\n")


def test_a_failed_run_is_named_by_its_folder_and_gives_no_pace(tmp_path, now, capsys):
    runs = [small_config(trial_seed=trial) for trial in (0, 1)]
    shown = Overview(tmp_path, runs, runs, rows=1)
    shown.begin(runs[0])
    now[0] = 3.0
    shown.finished(runs[0], "no\nmore")
    assert capsys.readouterr().out == f"   1/2  {runs[0].folder_name}: FAILED: no\n"


def test_the_pace_is_that_of_images_in_passes_and_of_the_steps_done_now(now):
    """SAM passes twice; of the first run half the steps were done before."""
    first, sam = small_config(algorithm="ERM"), small_config(algorithm="SAM")
    clock = Clock([first, sam], 1)
    clock.begin(first, 0.5)
    now[0] = 30.0
    assert clock.left() == ""
    assert clock.end(first) == 30.0
    assert clock.left() == "about 2 min left"  # 4 times 30 s
    clock.begin(sam, 0.0)
    now[0] = 90.0
    assert clock.left() == "about 1 min left"
    now[0] = 900.0
    assert clock.left() == "about 0 s left"
    clock.end(sam)
    assert clock.left() == ""


def test_the_end_is_not_before_that_of_the_longest_run(now):
    runs = [small_config(trial_seed=trial) for trial in range(2)]
    clock = Clock(runs, 8)
    clock.begin(runs[0], 0.0)
    now[0] = 40.0
    clock.end(runs[0])
    assert clock.left() == "about 40 s left"


def test_names_tell_runs_apart():
    plain, random = small_config(), small_config(hparams_seed=2)
    wider = small_config(hparams={**plain.hparams, "width": 2 * plain.hparams["width"]})
    start = f"{plain.algorithm}, held out {plain.held_out}, trial 0"
    assert names([plain, random], {}) == {plain.run_id: start, random.run_id: f"{start}, setting 2"}
    assert names([plain, wider], {}) == {run.run_id: f"{start}, run {run.run_id}" for run in (plain, wider)}
    labels = {plain.folder_name: "slim", wider.folder_name: "wide\n"}
    rows = {plain.run_id: "slim", wider.run_id: "wide\\n"}
    where = start.removeprefix(plain.algorithm)
    assert names([plain, wider], labels) == {run_id: f"{row}{where}" for run_id, row in rows.items()}


def test_a_line_names_the_row_of_the_plan(tmp_path, capsys):
    run = small_config()
    entry = planned.PlannedRun(run.folder_name, "Ours", run.dataset, run.algorithm, (0,), 0, run.steps)
    planned.write(tmp_path, "s", planned.Plan("x", (entry,)))
    Overview(tmp_path, [run], [run], rows=1).finished(run, "")
    assert capsys.readouterr().out == f"   1/1  Ours, held out {run.held_out}, trial 0: done\n"


@pytest.mark.parametrize(("seconds", "text"), [(59, "59 s"), (60, "1 min"), (5399, "90 min"), (5400, "1.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("note", ['{"step": "x", "steps": 3}', '{"steps": 3}', "[]", "{", '{"step": 1, "steps": 3}'])
def test_a_damaged_note_of_an_active_run(tmp_path, monkeypatch, note):
    """Only the last one says how far the run is."""
    config = small_config()
    (tmp_path / config.folder_name).mkdir()
    (tmp_path / config.folder_name / "progress.json").write_text(note)
    shown = Overview(tmp_path, [config], [config], rows=1)
    for bar in (shown.total, *shown.rows):
        monkeypatch.setattr(bar, "disable", False)
        monkeypatch.setattr(bar, "refresh", lambda *_, **__: None)
    shown.look([config])
    assert shown.rows[0].total == (3 if note == '{"step": 1, "steps": 3}' else 1)
