"""The printed tables of several tasks, and which of their Δm do not follow from their columns."""

import pytest

from domainbed_sage.results.printed_tasks import COLUMNS, STL, scenes

TABLES = {(table.title.split(" of ")[0], table.dataset): table for table in scenes()}
SAGE_ROWS = {"LS", "MGDA", "FairGrad", "SAMO-LS", "SAMO-MGDA", "SAMO-FairGrad"}


@pytest.mark.parametrize(
    ("key", "rows", "columns", "not_following"),
    [
        (("Table 2", "NYUv2"), 25, 9, {"IMTL-G", *(f"SAGE-{name}" for name in SAGE_ROWS)}),
        (("Table 2", "Cityscapes"), 25, 4, {f"SAGE-{name}" for name in SAGE_ROWS}),
        (("Table 4", "NYUv2"), 16, 9, {"IMTL"}),
        (("Table 3", "Cityscapes"), 16, 4, set()),
    ],
)
def test_which_printed_delta_m_do_not_follow(key, rows, columns, not_following):
    table = TABLES[key]
    assert len(table.cells) == rows
    assert set(table.implied()) == set(table.cells) - {STL}
    assert list(table.cells[STL]) == [name for name, _ in COLUMNS.values()][:columns]
    assert {row for row, implied in table.implied().items() if not implied.follows} == not_following


def test_the_widest_gaps_by_their_numbers():
    found = TABLES["Table 2", "Cityscapes"].implied()["SAGE-SAMO-MGDA"]
    assert (found.printed, round(found.delta_m, 2), round(found.half_width, 3)) == ("9.85", 5.84, 0.113)
    assert found.off == pytest.approx(4.01, abs=0.005)
