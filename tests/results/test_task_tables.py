"""Tables of runs on several tasks: means over evaluations and trials, the single-task row, Δm, and what is left out."""

import json
from dataclasses import replace

import pytest
from reference import sweep_folder
from task_records import BETTER, metrics, write, write_some

from domainbed_sage.cli import main
from domainbed_sage.results import planned, task_runs, task_tables
from domainbed_sage.results.delta_m import Baseline


@pytest.fixture
def results(tmp_path):
    write_some(tmp_path)
    return tmp_path


def test_rows_means_and_delta_m(results):
    (table,) = task_tables.build(task_runs.load(results))
    assert list(table.means.columns) == ["test_seg_miou", "test_depth_abserr", task_tables.DELTA]
    assert dict(table.trials) == {"STL": 2, "ERM-LS": 2, "SAGE-FairGrad": 1}
    means = table.means
    assert means.loc["STL"].tolist() == pytest.approx([41.0, 2.1, 0.0])
    assert means.loc["ERM-LS"].tolist()[:2] == pytest.approx([32.0, 2.0])
    baseline = Baseline("x", {"test_seg_miou": 41.0, "test_depth_abserr": 2.1}, BETTER)
    for row in ("ERM-LS", "SAGE-FairGrad"):
        expected = baseline.delta_m(means.loc[row, ["test_seg_miou", "test_depth_abserr"]].to_dict())
        assert means.at[row, task_tables.DELTA] == pytest.approx(expected)


def test_only_the_last_ten_evaluations_count(tmp_path):
    series = {"test_seg_miou": [0.0, 1000.0, *range(10)], "test_depth_abserr": [5.0] * 12}
    write(tmp_path, "long", series)
    write(tmp_path, "short", {"test_seg_miou": [1.0, 3.0], "test_depth_abserr": [5.0] * 2}, solver="UW")
    long, short = task_runs.load(tmp_path).runs
    assert (long.metrics["test_seg_miou"], long.evaluations) == (4.5, 10)
    assert (short.metrics["test_seg_miou"], short.evaluations) == (2.0, 2)
    (table,) = task_tables.build(task_runs.load(tmp_path))
    assert "the last 2 to 10 evaluations" in table.notes[0]


def test_without_single_tasks_there_is_no_delta_m(tmp_path):
    write(tmp_path, "ls", metrics(30.0, 1.0))
    write(tmp_path, "seg", {"test_seg_miou": [40.0]}, only_task="seg")
    (table,) = task_tables.build(task_runs.load(tmp_path))
    assert task_tables.DELTA not in table.means
    assert any("No Δm" in note for note in table.notes)


@pytest.mark.parametrize("metric", ["test_left_brier", "test_left_ece"])
def test_calibration_is_shown_and_not_in_delta_m(tmp_path, metric):
    better = {"test_left_accuracy": True, metric: False}
    for name, only, accuracy, brier in (("stl", "left", 80.0, 0.2), ("ls", "", 88.0, 0.9)):
        values = {"test_left_accuracy": [accuracy], metric: [brier]}
        write(tmp_path, name, values, only_task=only, better=better)
    (table,) = task_tables.build(task_runs.load(tmp_path))
    assert table.means.at["ERM-LS", metric] == 0.9
    assert table.means.at["ERM-LS", task_tables.DELTA] == pytest.approx(-10.0)


def test_best_is_bold_by_the_direction_of_each_column(tmp_path):
    """STL's Δm of 0 is best where no row improves on it."""
    rows = {"stl": (40.0, 2.0, "both"), "ls": (42.0, 1.0, ""), "uw": (30.0, 3.0, "")}
    for name, (seg, depth, only) in rows.items():
        write(tmp_path / "a", name, metrics(seg, depth), only_task=only, solver=name.upper())
        if name != "ls":
            write(tmp_path / "b", name, metrics(seg, depth), only_task=only, solver=name.upper())
    for folder, best in (("a", "| ERM-LS |**42**|**1**|**-27.5**|1|"), ("b", "| STL |**40**|**2**|**0**|1|")):
        (table,) = task_tables.build(task_runs.load(tmp_path / folder))
        lines = [line.replace(" ", "") for line in task_tables.markdown(table).splitlines() if "**" in line]
        assert lines == [best.replace(" ", "")]


def test_tables_of_two_datasets_are_apart(tmp_path):
    write(tmp_path, "a", metrics(40.0, 2.0))
    write(tmp_path, "b", metrics(30.0, 1.0), dataset="NYUv2")
    other = task_runs.load(tmp_path).runs[0]
    two = task_runs.TaskRuns((other, replace(other, name="c", variant="9 train, 3 test")))
    (mixed,) = task_tables.build(two)
    assert [note for note in mixed.notes if note.startswith("Data")] == [
        "Data: 5 train, 3 test.",
        "Data: 9 train, 3 test.",
    ]
    tables = task_tables.build(task_runs.load(tmp_path))
    assert [(table.dataset, table.means.at["ERM-LS", "test_seg_miou"]) for table in tables] == [
        ("Rooms", 40.0),
        ("NYUv2", 30.0),
    ]
    task_tables.write_all(tables, tmp_path)
    assert [line.split(",")[-1] for line in (tmp_path / "tasks.csv").read_text().splitlines()] == [
        "Dataset",
        "Rooms",
        "NYUv2",
    ]
    assert main(["table", str(tmp_path), "--datasets", "NYUv2"]) == 0
    assert "Rooms" not in (tmp_path / "tasks.md").read_text()


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ((1, 1), "that of the last evaluation, averaged"),
        ((1, 3), "the mean over the last 1 to 3 evaluations"),
        ((3, 3), "the mean over the last 3 evaluations"),
    ],
)
def test_over_how_many_evaluations_is_said(tmp_path, lengths, said):
    for name, n in zip(("ls", "uw"), lengths, strict=True):
        write(tmp_path, name, metrics(30.0, 1.0, n), solver=name.upper())
    (table,) = task_tables.build(task_runs.load(tmp_path))
    assert table.notes[0].startswith(f"Each number is {said}")


def test_the_plan_names_and_orders_rows(results):
    run = {"dataset": "Rooms", "test_envs": (1,), "trial_seed": 0, "steps": 1, "algorithm": "ERM"}
    rows = [("sage", "Ours"), ("ls0", "Sum"), ("ls1", "Sum")]
    runs = tuple(planned.PlannedRun(folder_name=name, label=label, **run) for name, label in rows)
    planned.write(results, "s", planned.Plan("x", runs))
    (table,) = task_tables.build(task_runs.load(results))
    assert list(table.means.index) == ["Ours", "Sum", "STL"]


def test_the_command(results, capsys):
    write(results, "begun", metrics(1.0, 1.0), done=False)
    (results / "torn").mkdir()
    (results / "torn" / "results.jsonl").write_text('{"args": 3}\n')
    (results / "torn" / "done").write_text("done")
    assert main(["table", str(results)]) == 1
    out, err = capsys.readouterr()
    assert "Dataset: Rooms, test samples" in out
    assert "seg_miou ↑" in out
    assert "depth_abserr ↓" in out
    assert "miou_present" not in out
    assert "Left out, not finished: 1 (begun)." in out
    assert "torn" in err
    text = (results / "tasks.md").read_text()
    assert "**41**" in text  # the best of its column
    assert "SAGE-FairGrad,41.0,1.0," in (results / "tasks.csv").read_text()


def test_a_number_that_is_none(tmp_path):
    write(tmp_path, "x", {"test_seg_miou": ["much"]})
    write(tmp_path, "nan", {"test_seg_miou": [None]})
    found = task_runs.load(tmp_path)
    assert [run.name for run in found.runs] == ["nan"]
    assert "test_seg_miou at step 0 should be a number. Found 'much'" in found.unreadable[0]
    (table,) = task_tables.build(found)
    assert " -" in task_tables.text(table)


def of_domains(folder, name="PACS-ERM-0"):
    """A finished run of domain generalization."""
    sweep_folder.write_flat(folder, [0.96, 0.964], dataset=name.partition("-")[0])


def test_a_folder_of_both_kinds(tmp_path, capsys):
    """Each kind has its table, what is planned of one is not missing in the other, and no run is called damaged."""
    of_domains(tmp_path)
    write(tmp_path, "Rooms-ls", metrics(40.0, 2.0))
    write(tmp_path, "Rooms-begun", metrics(40.0, 2.0), done=False)
    runs = [("Rooms-ls", "LS"), ("Rooms-begun", "UW"), ("Rooms-later", "SI")]
    plan = planned.Plan("", tuple(planned.PlannedRun(name, row, "Rooms", "ERM", (1,), 0, 1) for name, row in runs))
    planned.write(tmp_path, "tasks", plan)
    assert main(["table", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("-------- Dataset: ") == 2
    assert "On several tasks, with tables of their own: 1 (Rooms-ls)" in " ".join(out.split())
    assert "Left out, not finished: 1 (Rooms-begun)." in " ".join(out.split())
    assert "Missing: " not in out.partition("Rooms, test samples")[0]
    assert [(tmp_path / name).exists() for name in ("table.md", "tasks.md")] == [True, True]


def test_one_kind_at_a_time_as_json(tmp_path, capsys):
    of_domains(tmp_path)
    write(tmp_path, "Rooms-ls", metrics(40.0, 2.0))
    assert main(["table", str(tmp_path), "--json"]) == 2
    assert "one kind is printed at a time: choose datasets with --datasets" in capsys.readouterr().err
    for name, key in (("Rooms", "higher_is_better"), ("PACS", "cells")):
        assert main(["table", str(tmp_path), "--json", "--datasets", name]) == 0
        assert f'"{key}"' in capsys.readouterr().out


def test_chosen_rows(results, capsys):
    assert main(["table", str(results), "--algorithms", "SAGE-FairGrad"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["STL", "SAGE-FairGrad"]
    assert main(["table", str(results), "--algorithms", "SAGE-MGDA"]) == 2
    assert "The runs have no row 'SAGE-MGDA'. Known: ERM-LS, SAGE-FairGrad." in capsys.readouterr().err
    assert main(["table", str(results), "--datasets", "Rooms", "NYUv2"]) == 2
    assert "The runs have no dataset 'NYUv2'. Known: Rooms." in capsys.readouterr().err


def test_what_is_refused(tmp_path, capsys):
    write(tmp_path / "a", "begun", metrics(1.0, 1.0), done=False)
    assert main(["table", str(tmp_path / "a")]) == 2
    assert "is finished: 1 of them have begun." in capsys.readouterr().err
    write(tmp_path / "b", "ls", metrics(1.0, 1.0))
    assert main(["table", str(tmp_path / "b"), "--datasets", "PACS"]) == 2
    assert "The runs have no dataset 'PACS'. Known: Rooms." in capsys.readouterr().err
    assert main(["table", str(tmp_path / "a"), str(tmp_path / "a")]) == 2
    assert "one folder at a time" in capsys.readouterr().err


def test_as_json(results, capsys):
    write(results, "nan", {"test_seg_miou": [None]}, solver="UW")
    assert main(["table", str(results), "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    by_row = {row["row"]: row for row in table["rows"]}
    assert by_row["SAGE-FairGrad"]["metrics"]["test_seg_miou"] == 41.0
    assert by_row["STL"]["trials"] == 2
    assert by_row["ERM-UW"]["metrics"]["test_seg_miou"] is None
    assert table["higher_is_better"] == {"test_seg_miou": True, "test_depth_abserr": False}
    assert main(["table", str(results), "--latex"]) == 2
    assert "printed as text or JSON" in capsys.readouterr().err


def test_packed_runs_are_the_same_table(results, tmp_path_factory, capsys):
    elsewhere = tmp_path_factory.mktemp("packed")
    assert main(["pack", str(results), "--out", str(elsewhere)]) == 0
    assert task_runs.kinds(elsewhere) == {True}
    ours, theirs = (task_tables.build(task_runs.load(folder))[0] for folder in (elsewhere, results))
    assert ours.means.equals(theirs.means)
    assert main(["report", str(elsewhere)]) == 2
    assert f"The runs in {elsewhere} are on several tasks." in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("words", [["report"], ["compare", "--reference", "ERM", "--compare", "SAGE"]])
def test_other_commands_say_that_they_do_not_read_them(results, capsys, words):
    main([words[0], str(results), *words[1:]])
    assert "are on several tasks. `domainbed-sage table` shows them" in capsys.readouterr().err


def test_the_trivial_predictor_is_the_first_row(results):
    """Of the first run that has it and all tasks; it has no trials, and its Δm is against the same row."""
    write(results, "only", {"test_seg_miou": [50.0]}, trial=7, only_task="seg", trivial={"test_seg_miou": 77.0})
    trivial = {"test_seg_miou": 20.5, "test_seg_miou_present": 1.0, "test_depth_abserr": 4.2}
    write(results, "moco", metrics(31.0, 1.0), solver="MoCo", trivial=trivial | {"test_depth_abserr_pixels": None})
    (table,) = task_tables.build(task_runs.load(results))
    assert table.means.index[0] == task_tables.TRIVIAL
    assert table.means.loc[task_tables.TRIVIAL, "test_seg_miou"] == 20.5
    stl = table.means.loc["STL"]
    expected = 100 * ((stl["test_seg_miou"] - 20.5) / stl["test_seg_miou"] + 4.2 / stl["test_depth_abserr"] - 1) / 2
    assert table.means.loc[task_tables.TRIVIAL, task_tables.DELTA] == pytest.approx(expected)
    assert table.trials[task_tables.TRIVIAL] == 0
    shown = task_tables.text(table)
    assert "Trivial: the same for every image" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("Trivial ")]
    assert line.split()[-1] == "-"


def test_records_without_the_trivial_predictor(results):
    (table,) = task_tables.build(task_runs.load(results))
    assert task_tables.TRIVIAL not in table.means.index
    assert "Trivial" not in task_tables.text(table)
