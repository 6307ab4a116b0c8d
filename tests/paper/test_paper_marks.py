"""The printed marks of Tables 1 and 2: bold, underlined, plus and minus."""

import pytest

from domainbed_sage.paper import marks
from domainbed_sage.paper.marks import Column, judged


@pytest.fixture(scope="module")
def found():
    return {one.where: one for one in marks.findings()}


def column(**numbers):
    return Column({row: float(text) for row, text in numbers.items()}, numbers)


def test_equal_numbers_share_a_place():
    assert column(a="2", b="3", c="3", d="1", e="2").places() == ({"b", "c"}, {"a", "e"})
    assert column(a="2", b="2").places() == ({"a", "b"}, set())
    assert column(a="2.0", b="2").places() == ({"a", "b"}, set())


@pytest.mark.parametrize(
    ("bold", "underlined", "verdict"),
    [
        (["best"], ["second"], "holds"),
        (["best"], [], "holds"),
        (["tie"], ["second"], "holds"),  # of two best ones, one is marked
        (["second"], [], "holds in part"),  # perhaps an underline that the copy shows bold
        (["best", "second"], [], "holds in part"),
        (["best"], ["third"], "does not hold"),
        (["third"], [], "does not hold"),
        ([], ["tie"], "holds in part"),
    ],
)
def test_how_marks_are_judged(bold, underlined, verdict):
    assert judged(column(best="3", tie="3", second="2", third="1"), bold, underlined) == verdict


def test_which_marks_of_table_2_are_wrong(found):
    columns = {where.removeprefix("Marks of Table 2, "): one for where, one in found.items() if "Table 2" in where}
    by_verdict = {}
    for name, one in columns.items():
        by_verdict.setdefault(one.verdict, set()).add(name)
    assert by_verdict["does not hold"] == {"NYUv2, pixacc", "NYUv2, Δm", "Cityscapes, miou", "Cityscapes, relerr"}
    assert by_verdict["holds in part"] == {f"NYUv2, {name}" for name in ("median", "w11", "w22", "w30")}
    assert "best is F-MTL(F-IMTL) 76.63, second best SAMO-LS 76.46" in columns["Cityscapes, miou"].computed
    assert "second best Nash-MTL 65.93" in columns["NYUv2, pixacc"].computed
    assert "SAMO-LS 65.72" in columns["NYUv2, pixacc"].claim
    assert "SAMO-MGDA 30.57" in columns["Cityscapes, relerr"].claim
    assert "best is SAMO-FairGrad 26.30" in columns["Cityscapes, relerr"].computed


def test_five_rows_are_better_than_the_marked_relative_error():
    own = marks.column([row for row in marks.rows("table2") if row["method"] != "STL"], "cs_relerr", "method", False)
    assert sum(value > own.numbers["SAMO-MGDA"] for value in own.numbers.values()) == 5


def test_sage_is_not_best_on_vlcs(found):
    one = found["Marks of Table 1, SAGE"]
    assert one.computed == "VLCS: best is BOA 86.5, not SAGE 85.5"
    assert (one.verdict, one.numbers) == ("holds in part", {"bold": 6, "not the best": 1})


def test_a_row_without_a_best_number_has_no_right_mark():
    printed = [{"algorithm": "A", "x": "1", "y": "2"}, {"algorithm": "B", "x": "2", "y": "2"}]
    (one,) = marks._of_rows(printed, {("A", "x"): {marks.BOLD}})
    assert (one.verdict, one.computed) == ("does not hold", "x: best is B 2, not A 1")
    (one,) = marks._of_rows(printed, {("A", "x"): {marks.BOLD}, ("A", "y"): {marks.BOLD}})
    assert one.verdict == "holds in part"


def test_all_signs_agree_with_the_columns(found):
    assert found["Marks of Table 2, plus and minus signs"].numbers == {"signs": 90, "wrong": 0}


@pytest.mark.parametrize(
    ("column", "sign", "verdict"),
    [
        ("nyu_miou", "+", "holds"),  # 39.67 after 39.29
        ("nyu_miou", "-", "does not hold"),
        ("nyu_miou", "±", "does not hold"),
        ("nyu_relerr", "+", "holds"),  # 0.2180 after 0.2263: less is better
        ("nyu_dm_printed", "+", "holds"),
        ("nyu_dm_printed", "-", "does not hold"),
    ],
)
def test_a_sign_is_judged_by_the_direction_of_its_column(column, sign, verdict):
    assert marks._of_signs(marks.rows("table2"), {("SAGE-LS", column): {sign}}).verdict == verdict


def test_every_mark_is_on_a_number_that_is_there():
    for table, key in (("table1", "algorithm"), ("table2", "method")):
        numbers = {(row[key], name) for row in marks.rows(table) for name in row if row[name]}
        assert set(marks.marked(table)) <= numbers
    assert {mark["mark"] for mark in marks.rows("marks")} == {marks.BOLD, marks.UNDERLINE, *marks.SIGNS}
