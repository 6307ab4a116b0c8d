"""The printed Table 1 and the comparison with it."""

import io
import math

import pandas as pd
import pytest
from reference import sweep_folder

from domainbed_sage.core import resources
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import paper, protocols, tables
from domainbed_sage.results.folder import load_records


@pytest.fixture
def comparison(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.96, 0.98], algorithm="SAGE", trial=0)
    sweep_folder.write_flat(tmp_path, [0.94, 0.96], algorithm="SAGE", trial=1)
    sweep_folder.write_flat(tmp_path, [0.50, 0.50], algorithm="Mine", trial=0)
    sweep_folder.write_flat(tmp_path, [0.10, 0.10], algorithm="SAGE", dataset="EmojiStyles")
    return compared(tmp_path)


def compared(folder, method="training-domain"):
    records = load_records(folder).records
    return paper.compare(tables.build(records, method, labels={}), records)


def line(comparison, algorithm, at=0):
    strings = comparison.strings()
    start = list(strings.index).index(algorithm)
    return list(strings.iloc[start + at])


def test_printed_table():
    printed = paper.printed_table()
    assert len(printed) == 17
    assert list(printed.columns) == [*paper.DATASETS, "Avg", "recomputed"]
    assert list(printed.loc["SAGE"].round(2)) == [97.4, 85.5, 87.1, 61.1, 63.4, 78.9, 78.9]
    assert {"Fish", "GGA", "BOA", "DISAM"} <= set(printed.index)


def test_only_fish_has_an_impossible_average(comparison):
    printed = paper.printed_table()
    wrong = [name for name, r in printed.iterrows() if not paper.possible(r["Avg"], r["recomputed"])]
    assert wrong == ["Fish"]
    assert line(comparison, "Fish", 1)[-2:] == ["75.0*", "76.3"]
    assert comparison.notes[0].startswith("* Fish: the printed average is 75.0, but its five numbers average 76.34;")


def test_ours_beside_the_paper(comparison):
    assert line(comparison, "SAGE") == ["ours", "96.0 +/- 0.7", "-", "-", "-", "-", "-", ""]
    assert line(comparison, "SAGE", 1) == ["paper", "97.4", "85.5", "87.1", "61.1", "63.4", "78.9", "78.9"]
    assert line(comparison, "SAGE", 2) == ["diff", "-1.4", "-", "-", "-", "-", "-", ""]


def test_rows_without_runs_and_rows_of_our_own(comparison):
    assert line(comparison, "ERM") == ["ours", "-", "-", "-", "-", "-", "-", ""]
    assert line(comparison, "ERM", 1)[0] == "paper"
    assert comparison.ours.index[-1] == "Mine"
    assert line(comparison, "Mine")[1] == "50.0 (1/2)"
    assert len(comparison.strings()) == 17 * 2 + 1 + 1


def test_notes(comparison):
    notes = "\n".join(comparison.notes)
    assert "Not in the paper, left out: EmojiStyles." in notes
    assert "BOA's 86.5 is higher" in notes
    assert "Only the SAGE row was printed for fine-tuning" in notes
    assert "Ours: fine-tuning, training-domain validation." in notes
    assert "Missing: Mine on PACS" in notes


def test_other_selection_is_remarked(tmp_path):
    sweep_folder.write_flat(tmp_path, [0.5, 0.5])
    notes = compared(tmp_path, "oracle").notes
    assert "Ours: selected by test-domain validation set (oracle), which no printed row is." in notes


def tuned(folder, model, algorithms=("ERM", "GGA", "SAGE"), accuracy=0.9):
    for name in algorithms:
        for env in (0, 1):
            (line,) = sweep_folder.records([[accuracy] * 2], [[accuracy] * 2], algorithm=name, test_envs=[env])
            line["args"]["model"] = model
            sweep_folder.write(folder, [line], name=f"{name}-{env}-{model}")


@pytest.mark.parametrize(
    ("model", "method", "compared_with"),
    [
        ("clip_vit_b16", "training-domain", {"SAGE"}),
        ("clip_vit_b16", "oracle", set()),
        ("clip_vit_b16_vpt", "training-domain", set()),
        ("clip_vit_b16_vpt", "oracle", {"ERM"}),
    ],
)
def test_only_rows_of_one_protocol_are_compared(tmp_path, model, method, compared_with):
    """The printed ERM is prompt tuning with the target's validation set, SAGE fine-tuning, and GGA is not said."""
    tuned(tmp_path, model)
    comparison = compared(tmp_path, method)
    differing = comparison.differences["PACS"].notna()
    assert set(differing[differing].index) == compared_with
    assert len(comparison.strings().loc[lambda frame: frame[""] == "diff"]) == len(compared_with)
    shown = pd.read_csv(io.StringIO(paper.csv(comparison))).set_index(["algorithm", "dataset"])["difference"]
    assert {name for name, dataset in shown.dropna().index if dataset == "PACS"} == compared_with


def test_protocols_of_the_printed_rows():
    stated = paper.printed_protocols()
    assert set(stated) == {*protocols.TITLES, ""}
    assert list(stated[stated == protocols.FINE_TUNING].index) == ["SAGE"]
    assert list(stated[stated == ""].index) == ["GGA"]


def test_average_over_the_five_datasets(tmp_path):
    for dataset, accuracy in zip(paper.DATASETS, (0.9, 0.8, 0.8, 0.6, 0.6), strict=True):
        sweep_folder.write_flat(tmp_path, [accuracy] * 2, dataset=dataset, algorithm="SAGE")
    sweep_folder.write_flat(tmp_path, [0.1] * 2, dataset="EmojiStyles", algorithm="SAGE")
    comparison = compared(tmp_path)
    assert comparison.ours.loc["SAGE", "Avg"].mean == pytest.approx(74)
    assert line(comparison, "SAGE", 2) == ["diff", "-7.4", "-5.5", "-7.1", "-1.1", "-3.4", "-4.9", ""]


def test_rendered_forms(comparison, tmp_path):
    paths = paper.write_all(comparison, tmp_path / "out")
    assert [path.name for path in paths] == ["paper.md", "paper.tex", "paper.csv"]
    markdown, latex, csv = (path.read_text() for path in paths)
    (line_of_sage,) = [line for line in markdown.splitlines() if line.startswith("| SAGE ")]
    assert [cell.strip() for cell in line_of_sage.strip("|").split("|")] == ["SAGE", "ours", "96.0 ± 0.7", *"–––––", ""]
    assert r"75.0\*" in markdown
    assert r" & paper & 97.4 & 85.5 & 87.1 & 61.1 & 63.4 & 78.9 & 78.9 \\" in latex
    rows = pd.read_csv(io.StringIO(csv)).set_index(["algorithm", "dataset"])
    assert rows.loc[("SAGE", "PACS"), "difference"] == pytest.approx(-1.4)
    assert rows.loc[("Fish", "Avg"), "printed_recomputed"] == pytest.approx(76.34)
    assert math.isnan(rows.loc[("Mine", "PACS"), "printed"])
    assert "ours   96.0 +/- 0.7" in paper.text(comparison)


def test_shipped_prefers_the_packaged_copy(tmp_path, monkeypatch):
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    with pytest.raises(UserError, match=r"x/y\.csv is missing"):
        resources.shipped("x/y.csv")
    for folder in (package.parent, package / "_shipped"):
        (folder / "x").mkdir(parents=True)
        (folder / "x" / "y.csv").write_text("")
        assert resources.shipped("x/y.csv") == folder / "x" / "y.csv"
