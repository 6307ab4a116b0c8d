"""The derived numbers of the printed tables: which follow from their columns, and how far off the others are."""

import itertools
import json
from pathlib import Path

import pytest

from domainbed_sage.paper import audit, derived, improvements
from domainbed_sage.paper.derived import Derived, delta_m, mean
from domainbed_sage.results.printed_tasks import STL, Printed

SAGE_ROWS = {  # Δm printed and by the columns, NYU-v2 and Cityscapes
    "SAGE-LS": (3.81, 2.88, 19.92, 17.09),
    "SAGE-MGDA": (-1.77, -2.60, 3.82, 1.39),
    "SAGE-FairGrad": (-5.63, -6.57, 2.63, 1.61),
    "SAGE-SAMO-LS": (3.82, 2.93, 18.71, 16.90),
    "SAGE-SAMO-MGDA": (-3.66, -4.85, 9.85, 5.84),
    "SAGE-SAMO-FairGrad": (-6.19, -6.81, 4.88, 4.57),
}
COMMITTED = Path(__file__).parent.parent.parent / "results/paper_check/audit.json"
HALF_WIDTHS = {"NYUv2": 0.027, "Cityscapes": 0.23}  # with the rounding of the baseline


@pytest.fixture(scope="module")
def found():
    return {one.where: one for one in derived.findings()}


def test_every_derived_number_is_there(found):
    sections = [where.partition(",")[0] for where in found]
    assert {name: sections.count(name) for name in sections} == {
        "Table 1": 17,
        "F-MTL Table 1": 27,
        "Table 2": 48,
        "F-MTL Table 3": 15,
        "F-MTL Table 4": 15,
        "F-MTL Table 5": 3,
        "F-MTL Table 6": 6,
        "F-MTL Table 7": 6,
    }


def test_which_cannot_follow(found):
    assert {where for where, one in found.items() if one.verdict == "cannot follow"} == {
        "Table 1, FISH",
        "Table 2, NYUv2, IMTL-G",
        "F-MTL Table 4, NYUv2, IMTL",
        *(f"Table 2, {dataset}, {row}" for dataset in HALF_WIDTHS for row in SAGE_ROWS),
    }


def test_averages_follow_as_they_are_rounded(found):
    averages = [one for one in found.values() if one.claim.startswith("average")]
    assert {one.verdict for one in averages} == {"follows", "cannot follow"}
    fish = found["Table 1, FISH"].numbers
    assert (fish["printed"], fish["value"]) == (75.0, pytest.approx(76.34))
    assert (fish["low"], fish["high"]) == (pytest.approx(76.29), pytest.approx(76.39))


@pytest.mark.parametrize("row", SAGE_ROWS)
def test_the_rows_of_sage_by_their_numbers(found, row):
    numbers = [found[f"Table 2, {dataset}, {row}"].numbers for dataset in HALF_WIDTHS]
    assert [value for own in numbers for value in (own["printed"], own["value"])] == pytest.approx(
        SAGE_ROWS[row], abs=0.005
    )
    for own, half in zip(numbers, HALF_WIDTHS.values(), strict=True):
        assert (own["high"] - own["low"]) / 2 == pytest.approx(half, rel=0.1)


def test_imtl_is_off_in_both_papers(found):
    numbers = [found[where].numbers for where in ("Table 2, NYUv2, IMTL-G", "F-MTL Table 4, NYUv2, IMTL")]
    assert [(own["printed"], round(own["value"], 3)) for own in numbers] == [(-0.76, -0.6)] * 2


def test_rows_of_table_5_are_those_of_table_3():
    """By their digits: the interval is derived from them."""
    tables = dict(derived.tables()[2:])
    for row, same in {"ERM": "MGDA", "Ours (individual)": "F-MGDA"}.items():
        assert tables["F-MTL Table 5"].cells[row] == tables["F-MTL Table 3"].cells[same]
    assert tables["F-MTL Table 5"].cells["Ours (direct)"]["test_depth_abserr"] == "0.0130"


def test_every_number_of_a_column_of_scores_has_its_digits():
    for _, name in derived.SCORES:
        cells = [text for row in derived.rows(name) for key, text in row.items() if key not in ("method", "task")]
        assert {len(text.partition(".")[2]) for text in cells} == {3}


@pytest.mark.parametrize(
    ("columns", "printed", "verdict"),
    [
        (["1.0", "1.1"], "1.0", "follows"),  # 1.05 is halfway: both are its rounding
        (["1.0", "1.1"], "1.1", "follows"),
        (["86.99", "86.04"], "86.51", "follows"),
        (["86.99", "86.04"], "86.52", "follows"),
        (["1.0", "1.2"], "1.0", "only if rounded otherwise"),  # 1.05 to 1.15 round to 1.0 and 1.2 at the ends
        (["1.0", "1.2"], "1.2", "only if rounded otherwise"),
        (["1.0", "1.2"], "0.9", "cannot follow"),
        (["1.0", "1.2"], "1.3", "cannot follow"),
        (["1", "2"], "2", "follows"),
        (["1", "2"], "3", "cannot follow"),
    ],
)
def test_verdicts_of_an_average(columns, printed, verdict):
    assert mean(columns, printed).verdict == verdict


def test_the_interval_of_an_average_is_that_of_all_its_columns():
    """Half a unit of 0.05 and one of 0.005."""
    own = mean(["1.0", "1.25"], "1.1")
    assert (own.low, own.high) == (pytest.approx(1.125 - 0.0275), pytest.approx(1.125 + 0.0275))


def test_the_interval_of_delta_m_has_its_ends_at_corners():
    """All corners of all roundings, tried one by one."""
    better = {"up": True, "down": False}
    columns, baseline = {"up": "39.2", "down": "0.54"}, {"up": "38.3", "down": "0.67"}
    half = {"up": 0.05, "down": 0.005}
    corners = []
    for signs in itertools.product((-1, 1), repeat=4):
        M = {name: float(columns[name]) + half[name] * sign for name, sign in zip(columns, signs[:2], strict=True)}
        B = {name: float(baseline[name]) + half[name] * sign for name, sign in zip(baseline, signs[2:], strict=True)}
        corners.append(50 * (-(M["up"] - B["up"]) / B["up"] + (M["down"] - B["down"]) / B["down"]))
    own = delta_m(columns, baseline, better, "-10.87")
    assert (own.low, own.high) == (pytest.approx(min(corners)), pytest.approx(max(corners)))
    assert own.value == pytest.approx(50 * (-0.9 / 38.3 - 0.13 / 0.67))


def test_a_finding_says_its_numbers():
    one = Derived("75.0", 76.34, 76.29, 76.39).finding("Table 1, FISH", "average", "how")
    assert (one.claim, one.verdict) == ("average 75.0", "cannot follow")
    assert one.computed == "76.340 (76.290 to 76.390 before the columns were rounded)"


def test_how_often_sage_improves_its_base_solver():
    counted = {one.where: one for one in improvements.findings()}
    every, three = (counted[f"Gains in Table 2, {who}"] for who in ("all six base solvers", "LS, MGDA and FairGrad"))
    assert every.numbers == {"cells": 12, "printed": 7, "columns": 8}
    assert three.numbers == {"cells": 6, "printed": 6, "columns": 6}
    assert (every.verdict, three.verdict) == ("holds in part", "holds")


@pytest.mark.parametrize(
    ("printed", "columns", "verdict"), [(1.0, 0.9, "holds in part"), (0.9, 1.0, "holds in part"), (0.9, 0.8, "holds")]
)
def test_a_cell_that_stays_equal_is_not_improved(printed, columns, verdict):
    one, other = ({(0, "SAGE-A"): (1.0, own), (1, "SAGE-A"): (1.0, 0.5)} for own in (printed, columns))
    found = improvements._counted("", "", one, other, "SAMO-", both_kinds=True)
    assert found.numbers == {"cells": 2, "printed": 1 + (printed < 1), "columns": 1 + (columns < 1)}
    assert found.verdict == verdict


def test_the_strongest_row_is_another_one_by_the_columns():
    nyu, cityscapes = (
        next(one for one in improvements.findings() if one.where == f"Gains in Table 2, {dataset}")
        for dataset in HALF_WIDTHS
    )
    assert (nyu.verdict, cityscapes.verdict) == ("holds in part", "holds")
    assert "by the columns: SAGE-SAMO-FairGrad (-6.81)" in nyu.computed


def test_no_other_baseline_explains_the_rows_of_sage():
    nyu, cityscapes = improvements.table2()
    assert improvements.nearest_baseline(cityscapes, list(SAGE_ROWS)) is None
    assert improvements.nearest_baseline(nyu, list(SAGE_ROWS)) > 1


def test_the_printed_baseline_explains_rows_that_follow():
    """Within its own rounding: half a unit of 0.0125 is 0.4%."""
    _, cityscapes = improvements.table2()
    others = [row for row in cityscapes.delta_m if row not in SAGE_ROWS]
    assert improvements.nearest_baseline(cityscapes, others) < 0.004
    assert STL not in cityscapes.delta_m


def test_the_tables_of_the_other_paper_come_last():
    sections = [one.section for one in audit.findings()]
    first = next(at for at, name in enumerate(sections) if name.startswith("F-MTL"))
    assert all(name.startswith("F-MTL") for name in sections[first:])
    assert sections[0] == "Table 1"


@pytest.mark.parametrize(("printed", "change"), [("-20.0", 0.0), ("-32.0", 0.1), ("150.0", None)])
def test_a_baseline_is_positive(printed, change):
    """Of one metric, 12 against 10: 150 would take a negative baseline."""
    name = "test_segmentation_miou"
    table = Printed("", "", {STL: {name: "10.000"}, "SAGE-A": {name: "12.000"}}, {"SAGE-A": printed})
    found = improvements.nearest_baseline(table, ["SAGE-A"])
    assert found == (change if change is None else pytest.approx(change, abs=1e-3))


def test_the_committed_findings_are_those_of_today():
    committed = json.loads(COMMITTED.read_text())["findings"]
    found = audit.findings()
    drawn = {one.where for one, other in zip(found, audit.findings(1), strict=True) if one.numbers != other.numbers}
    assert drawn == {f"Section 3.1, {what}" for what in ("T = 5 of Eq. 7, a normal matrix", "size of the perturbation")}
    for name in ("where", "claim", "computed", "verdict", "how"):
        assert [one[name] for one in committed] == [getattr(one, name) for one in found]
    for one, own in zip(committed, found, strict=True):
        assert one["numbers"] == pytest.approx(dict(own.numbers), rel=1e-6, abs=1e-9)
