"""The printed tables of several tasks: Table 2 of the SAGE paper, and F-MTL's tables of scenes."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from domainbed_sage.core.resources import shipped
from domainbed_sage.results.delta_m import Baseline, Implied

STL = "STL"  # single-task learning, in the words of SAGE's Table 2
SAGE = 'Table 2 of "Flatness and Gradient Alignment Are Both Necessary" (SAGE, arXiv:2605.07914)'
FMTL = 'of "Improving Multi-task Learning via Seeking Task-based Flat Regions" (F-MTL)'
# Our name in records of a printed column, and whether higher is better.
COLUMNS: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "miou": ("test_segmentation_miou", True),
        "pixacc": ("test_segmentation_pixacc", True),
        "abserr": ("test_depth_abserr", False),
        "relerr": ("test_depth_relerr", False),
        "mean": ("test_normal_mean", False),
        "median": ("test_normal_median", False),
        "w11": ("test_normal_w11", True),
        "w22": ("test_normal_w22", True),
        "w30": ("test_normal_w30", True),
    }
)


@dataclass(frozen=True)
class Printed:
    """One printed table of a dataset of scenes.

    Attributes:
        title: of the table, with its paper.
        dataset: our name of the dataset.
        cells: for each row, by its printed name without citations, the numbers as printed, by their names in our
            records.
        delta_m: for each row, Δm as printed; rows without one are left out.
    """

    title: str
    dataset: str
    cells: Mapping[str, Mapping[str, str]]
    delta_m: Mapping[str, str]

    @property
    def baseline(self) -> Baseline:
        """The printed row of single-task networks."""
        better = dict(COLUMNS.values())
        return Baseline(STL, {name: float(text) for name, text in self.cells[STL].items()}, better)

    def implied(self) -> dict[str, Implied]:
        """For each row with a printed Δm: what its columns imply."""
        return {row: self.baseline.implied(self.cells[row], text) for row, text in self.delta_m.items()}


def scenes() -> list[Printed]:
    """The tables of NYU-v2 and Cityscapes, those of the SAGE paper first."""
    return [
        read("table2", SAGE, "NYUv2", "nyu_"),
        read("table2", SAGE, "Cityscapes", "cs_"),
        read("fmtl_table4_nyuv2", f"Table 4 {FMTL}", "NYUv2"),
        read("fmtl_table3_cityscapes", f"Table 3 {FMTL}", "Cityscapes"),
    ]


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a printed table, a file in `results/paper`, as strings."""
    with shipped(f"results/paper/{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read(name: str, title: str, dataset: str, prefix: str = "") -> Printed:
    """The columns of a file whose names begin with a prefix."""
    by_name = {row["method"]: row for row in rows(name)}
    cells = {
        name: {ours: row[prefix + theirs] for theirs, (ours, _) in COLUMNS.items() if prefix + theirs in row}
        for name, row in by_name.items()
    }
    column = f"{prefix}dm_printed"
    delta_m = {name: row[column] for name, row in by_name.items() if row[column] and name != STL}
    return Printed(title, dataset, cells, delta_m)
