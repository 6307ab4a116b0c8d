"""Δm of Table 2, from its columns, and what its rounding allows."""

import csv
import json
import math
from pathlib import Path

import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.resources import shipped
from domainbed_sage.results.delta_m import Baseline, half_unit

ROWS = {row["method"]: row for row in csv.DictReader(shipped("results/paper/table2.csv").read_text().splitlines())}
RECORDED = json.loads((Path(__file__).parents[1] / "data" / "mtl" / "delta_m.json").read_text())["rows"]
RECORDED = {row["method"]: (row["nyu_delta_m"], row["cs_delta_m"]) for row in RECORDED}
UP = dict.fromkeys(("miou", "pixacc", "w11", "w22", "w30"), True) | dict.fromkeys(
    ("abserr", "relerr", "mean", "median"), False
)
NOT_FOLLOWING = {  # printed Δm that do not follow from the printed columns
    "nyu": {"IMTL-G", *(name for name in ROWS if name.startswith("SAGE"))},
    "cs": {name for name in ROWS if name.startswith("SAGE")},
}


def printed(data, method):
    cells = {key.removeprefix(f"{data}_"): text for key, text in ROWS[method].items() if key.startswith(f"{data}_")}
    return cells.pop("dm_printed"), cells


def baseline(data):
    return Baseline("STL", {name: float(text) for name, text in printed(data, "STL")[1].items()}, UP)


@pytest.mark.parametrize("method", ROWS)
def test_every_row_of_table_2(method):
    for data, expected in zip(("nyu", "cs"), RECORDED[method], strict=True):
        text, cells = printed(data, method)
        found = baseline(data).delta_m({name: float(value) for name, value in cells.items()})
        assert found == pytest.approx(expected, rel=0, abs=1e-11)
        if text:
            implied = baseline(data).implied(cells, text)
            assert implied.delta_m == found
            assert implied.follows == (method not in NOT_FOLLOWING[data]), (data, implied)


@pytest.mark.parametrize(("data", "half"), [("nyu", 0.0139), ("cs", 0.1075)])
def test_rounding_is_the_largest_move(data, half):
    """All columns off by half a unit to their bad side move Δm by exactly this."""
    base, (_, cells) = baseline(data), printed(data, "FairGrad")
    worse = {name: float(text) + half_unit(text) * (-1 if UP[name] else 1) for name, text in cells.items()}
    moved = base.delta_m(worse) - base.delta_m({name: float(text) for name, text in cells.items()})
    assert base.rounding(cells) == pytest.approx(moved)
    assert moved == pytest.approx(half, abs=5e-5)


@pytest.mark.parametrize(("text", "follows"), [("0.150", True), ("0.151", False), ("0.049", False), ("0.2", True)])
def test_a_printed_delta_m_may_be_off_by_what_rounding_moves(text, follows):
    """The column implies 0.1 and moves Δm by 0.05; the last one is printed with half a unit of 0.05 more."""
    implied = Baseline("STL", {"a": 100.0}, {"a": False}).implied({"a": "100.1"}, text)
    assert implied.delta_m == pytest.approx(0.1)
    assert implied.half_width == pytest.approx(0.05 + half_unit(text))
    assert implied.follows == follows


def test_less_is_better_and_the_mean_is_over_metrics():
    base = Baseline("STL", {"accuracy": 50.0, "error": 2.0}, {"accuracy": True, "error": False, "other": True})
    assert base.delta_m({"error": 1.0, "accuracy": 50.0}) == -25
    assert base.delta_m({"error": 2.0, "accuracy": 60.0}) == pytest.approx(-10)
    assert math.isnan(base.delta_m({"error": 2.0, "accuracy": math.nan}))


@pytest.mark.parametrize(
    ("text", "half"), [("93.4", 0.05), ("0.0125", 5e-5), ("7", 0.5), ("1.2e-3", 5e-5), ("30", 0.5)]
)
def test_half_a_unit(text, half):
    assert half_unit(text) == half


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Baseline("STL", {}, {}), "at least one metric"),
        (lambda: Baseline("STL", {"a": 0.0}, {"a": True}), "baseline STL should .* Found {'a': 0.0}"),
        (lambda: Baseline("STL", {"a": -1.0}, {"a": True}), "positive"),
        (lambda: Baseline("STL", {"a": math.nan}, {"a": True}), "finite"),
        (lambda: Baseline("STL", {"a": math.inf}, {"a": True}), "finite"),
        (lambda: Baseline("STL", {"a": 1.0}, {}), "whether more is better of a"),
        (lambda: Baseline("STL", {"a": 1.0}, {"a": True}).delta_m({}), "exactly its 1 metric. Found none. Known: a"),
        (lambda: Baseline("STL", {"a": 1.0}, {"a": True}).delta_m({"a": 1, "b": 1}), "Found a, b. Known: a"),
        (lambda: Baseline("STL", {"a": 1.0}, {"a": True}).rounding({"b": "1"}), "Found b. Known: a"),
        (lambda: half_unit("nan"), "Found 'nan'"),
        (lambda: half_unit("-"), "Found '-'"),
    ],
)
def test_what_has_no_delta_m(call, said):
    with pytest.raises(UserError, match=said):
        call()
