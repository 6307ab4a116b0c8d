"""Our tables of several tasks beside the printed ones: which rows meet, the three Δm, marks, and what is said."""

import json
import math

import pandas as pd
import pytest

from domainbed_sage.cli import main
from domainbed_sage.results import task_paper
from domainbed_sage.results.delta_m import Baseline
from domainbed_sage.results.printed_tasks import COLUMNS
from domainbed_sage.results.task_tables import DELTA, TaskTable

BETTER = dict(COLUMNS.values())
STL = dict(zip(BETTER, (38.0, 64.0, 0.7, 0.3, 25.0, 19.0, 30.0, 57.0, 69.0), strict=True))
OURS = dict(zip(BETTER, (40.0, 65.0, 0.6, 0.2, 26.0, 20.0, 28.0, 55.0, 68.0), strict=True))
DIGITS = {f"test_{side}_{metric}": v for side, x in (("left", 0), ("right", 1)) for metric, v in
          (("accuracy", 95.0 - x), ("brier", 0.08 + 0.02 * x), ("ece", 0.03))}  # fmt: skip


def table(dataset, rows, better=BETTER):
    """A table of these metrics by row; with a row STL, Δm against it."""
    means = pd.DataFrame(rows).T
    if "STL" in rows:
        base = Baseline("STL", rows["STL"], better)
        means[DELTA] = [base.delta_m(metrics) for metrics in rows.values()]
    return TaskTable(dataset, means, pd.Series(dict.fromkeys(rows, 1)), better, ())


def cells(comparison, own):
    """The numbers of one of our rows in the frame, by column."""
    frame = comparison.frame()
    return frame[frame["our_row"] == own].set_index("column")


@pytest.mark.parametrize(
    ("dataset", "titles"),
    [
        ("NYUv2", ["Table 2", "Table 4"]),
        ("Cityscapes", ["Table 2", "Table 3", "Table 5"]),
        ("MultiMNIST", ["Table 1", "Table 6", "Table 7"]),
        ("MultiMNISTPareto", ["Table 1", "Table 6", "Table 7"]),
        ("CelebA", ["Table 2"]),
        ("Rooms", []),
    ],
)
def test_which_tables_are_printed(dataset, titles):
    found = task_paper.compare(table(dataset, {"LS": OURS}))
    assert [one.printed.title.split(" of ")[0] for one in found] == titles


@pytest.mark.parametrize(
    ("printed", "ours"),
    [
        ("LS", "LS"),
        ("LS", "ERM-LS"),
        ("IMTL-G", "ERM-IMTL-G"),
        ("F-MTL(F-IMTL)", "F-IMTL"),
        ("F-MTL(F-IMTL)", "F-MTL-IMTL-G"),
        ("SAGE-SAMO-FairGrad", "SAGE_SAMO-FairGrad"),
        ("SAMO-MGDA", "SAMO-MGDA"),
    ],
)
def test_rows_of_one_method_meet(printed, ours):
    sage, fmtl = task_paper.compare(table("NYUv2", {ours: OURS, "other": STL}))
    assert dict(sage.pairs)[printed] == ours
    assert sum(own == ours for _, own in sage.pairs) == 1
    assert ("", "other") in sage.pairs
    if "IMTL" in printed:
        assert {"IMTL": dict(fmtl.pairs)["IMTL"], "F-IMTL": dict(fmtl.pairs)["F-IMTL"]}[
            printed.removeprefix("F-MTL(").rstrip(")").removesuffix("-G")
        ] == ours


def test_three_kinds_of_delta_m():
    """As printed, as its columns imply, and ours: none is taken for another."""
    comparison = task_paper.compare(table("NYUv2", {"STL": STL, "SAGE-LS": OURS}))[0]
    row = cells(comparison, "SAGE-LS").loc[DELTA]
    assert (row["printed"], round(row["implied_by_columns"], 2), row["follows"]) == ("3.81", 2.88, False)
    assert row["ours"] == pytest.approx(Baseline("x", STL, BETTER).delta_m(OURS))
    assert cells(comparison, "SAGE-LS").loc["test_normal_w30", ["printed", "ours"]].tolist() == ["62.87", 68.0]
    lines = comparison.strings()
    assert lines.loc["SAGE-LS", list(task_paper.DELTAS)].tolist() == ["3.81*", "2.88", ""]
    own = lines.iloc[list(lines.index).index("SAGE-LS") + 1]
    assert (own[""], own["segmentation_miou ↑"]) == ("ours", "40")
    assert own[list(task_paper.DELTAS)].tolist() == ["", "", f"{row['ours']:.4g}"]
    assert lines.loc["FairGrad", "Δm printed"] == "-4.96"
    assert lines.loc["STL", "Δm printed"] == ""


@pytest.mark.parametrize(("dataset", "marked"), [("NYUv2", 7), ("Cityscapes", 6)])
def test_the_footer_names_every_mark(dataset, marked):
    (sage, *fmtl) = task_paper.compare(table(dataset, {"LS": OURS}))
    (said,) = (note for note in sage.notes() if note.startswith("*"))
    assert said.count(", columns imply") == marked
    assert list(sage.strings()["Δm printed"].str.endswith("*")).count(True) == marked
    assert {
        "NYUv2": "SAGE-LS (3.81, columns imply 2.88 ± 0.02)",
        "Cityscapes": "SAGE-SAMO-MGDA (9.85, columns imply 5.84 ± 0.11)",
    }[dataset] in said
    clean = [one for one in fmtl if "Every printed Δm follows from its columns within rounding." in one.notes()]
    assert len(clean) == {"NYUv2": 0, "Cityscapes": 2}[dataset]


def test_without_single_tasks_our_delta_m_is_nothing():
    comparison = task_paper.compare(table("Cityscapes", {"LS": OURS}))[0]
    assert math.isnan(cells(comparison, "LS").loc[DELTA, "ours"])


def test_calibration_and_means_over_tasks():
    accuracy, brier, ece = task_paper.compare(table("MultiMNIST", {"MGDA": DIGITS}, {}))
    found = cells(accuracy, "MGDA")
    assert found.loc["test_mean_accuracy", ["printed", "ours"]].tolist() == ["95.05 ± 0.06", 94.5]
    assert DELTA not in found.index
    for comparison, expected in ((brier, 0.09), (ece, 0.03)):
        assert ("", "MGDA") in comparison.pairs  # ERM and Ours are nobody's
        assert [row for row, own in comparison.pairs if own and row] == []
        assert cells(comparison, "MGDA")["ours"].iloc[-1] == pytest.approx(expected)
        assert any("Printed for other data, MultiMNISTPareto" in note for note in comparison.notes())
    same = task_paper.compare(table("MultiMNISTPareto", {"MGDA": DIGITS}, {}))[0]
    assert not any("other data" in note for note in same.notes())


def test_rows_named_erm_or_ours_are_nobodys():
    brier = task_paper.compare(table("MultiMNIST", {"ERM": DIGITS, "Ours": DIGITS}, {}))[1]
    assert [row for row, own in brier.pairs if own] == ["", ""]
    assert list(brier.notes())[1:] == [
        "Printed for other data, MultiMNISTPareto; ours is MultiMNIST.",
        "Printed rows with one of ours: 0 of 2.",
        "ERM and Ours: as printed; no row of ours stands for them.",
    ]


def test_printed_digits_by_our_names():
    accuracy, brier, ece = (one.printed.cells for one in task_paper.compare(table("MultiMNIST", {"LS": DIGITS}, {})))
    sides = ("left", "right", "mean")
    assert accuracy["STL"] == dict(
        zip([f"test_{side}_accuracy" for side in sides], ["95.33 ± 0.08", "94.16 ± 0.04", "94.74 ± 0.06"], strict=True)
    )
    assert brier["ERM"] == dict(zip([f"test_{side}_brier" for side in sides], ["0.082", "0.106", "0.094"], strict=True))
    assert ece["Ours"] == dict(zip([f"test_{side}_ece" for side in sides], ["0.022", "0.028", "0.025"], strict=True))


def test_direct_aggregation_has_a_row_of_its_own():
    ours = {"F-MGDA direct": OURS, "F-MGDA": OURS, "F-MTL-LS": OURS}
    *_, aggregation = task_paper.compare(table("Cityscapes", ours))
    assert dict(aggregation.pairs)["Ours (direct)"] == "F-MGDA direct"
    assert "Printed rows with one of ours: 1 of 4." in aggregation.notes()


def test_error_is_what_accuracy_lacks():
    rows = {"PCGrad": {"test_A_accuracy": 90.0, "test_B_accuracy": 93.0}}
    (comparison,) = task_paper.compare(table("CelebA", rows, {}))
    assert cells(comparison, "PCGrad").loc["test_mean_error", ["printed", "ours"]].tolist() == ["8.69", 8.5]


@pytest.fixture
def results(tmp_path):
    """Two rows on Cityscapes, and one on Rooms."""
    names = [name for name in BETTER if "normal" not in name]
    for folder, dataset, solver in (("a", "Cityscapes", "LS"), ("b", "Cityscapes", "MGDA"), ("c", "Rooms", "LS")):
        (tmp_path / folder).mkdir()
        record = {
            "step": 0,
            "args": {"task": "multi_task", "dataset": dataset, "algorithm": "ERM", "trial_seed": 0, "test_envs": [1]},
            "hparams": {"solver": solver, "only_task": ""},
            "data": {"variant": "x"},
            "higher_is_better": {name: BETTER[name] for name in names},
            **{name: OURS[name] for name in names},
        }
        record["args"]["hparams_seed"] = 0
        (tmp_path / folder / "results.jsonl").write_text(json.dumps(record) + "\n")
        (tmp_path / folder / "done").write_text("done")
    return tmp_path


def test_the_command(results, capsys):
    assert main(["table", str(results), "--paper"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "-------- Cityscapes, beside Table 2" in out
    assert (
        "Nothing is printed for Rooms. There are printed tables of NYUv2, Cityscapes, MultiMNISTPareto, CelebA, "
        "MultiMNIST."
    ) in out
    assert "Printed rows with one of ours: 2 of 25." in out
    frame = pd.read_csv(results / "paper_tasks.csv", dtype={"printed": str})
    (printed,) = frame.query("method == 'MGDA' and column == 'test_depth_abserr' and table.str.contains('SAGE')")[
        "printed"
    ]
    assert printed == "0.0309"
    assert "## Cityscapes, beside Table 3" in (results / "paper_tasks.md").read_text()
    main(["table", str(results), "--paper", "--json"])
    cityscapes, rooms = json.loads(capsys.readouterr().out)["tables"]
    assert [one["table"].split(" of ")[0] for one in cityscapes["paper"]] == ["Table 2", "Table 3", "Table 5"]
    assert cityscapes["paper"][0]["rows"][0]["ours"] is None
    assert rooms["paper"] == []


def test_nothing_of_it_without_the_flag(results, capsys):
    assert main(["table", str(results)]) == 0
    assert "beside" not in capsys.readouterr().out
    assert not (results / "paper_tasks.csv").exists()
