"""Every printed number that is a function of other printed numbers: averages and Δm, from the columns as printed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from domainbed_sage.paper.findings import Finding, Verdict
from domainbed_sage.results.delta_m import Baseline, half_unit
from domainbed_sage.results.printed_fmtl import aggregation
from domainbed_sage.results.printed_tasks import STL, Printed, rows, scenes

TIE = 1e-9  # of a number that lies halfway between two printed ones; both are then its rounding
AVERAGES = (  # section, file, columns that name a row, and for each printed average its name and its columns
    (
        *("Table 1", "table1", ("printed",)),
        {"avg_printed": ("", ("PACS", "VLCS", "OfficeHome", "TerraIncognita", "DomainNet"))},
    ),
    (
        *("F-MTL Table 1", "fmtl_table1_multimnist", ("method",)),
        {
            "fashion_avg": ("MultiFashion", ("fashion_t1", "fashion_t2")),
            "mnist_avg": ("MultiMNIST", ("mnist_t1", "mnist_t2")),
            "fm_avg": ("MultiFashion+MNIST", ("fm_t1", "fm_t2")),
        },
    ),
)
SCORES = (("F-MTL Table 6", "fmtl_table6_brier"), ("F-MTL Table 7", "fmtl_table7_ece"))
HOW_AVERAGE = (
    "The mean of the printed columns; the interval is its range when every column lies within half a unit of its last "
    "printed digit. «Follows»: the printed number is the mean, rounded; «only if rounded otherwise»: it is another one "
    "that the interval allows."
)
HOW_DELTA_M = (
    "Δm = 100/n Σ s_i (M_i - B_i)/B_i over the printed columns, with the printed single-task row (STL) as B; the "
    "interval is its range when all columns of both rows lie within half a unit of their last printed digit. "
    "«Follows»: the printed Δm is that of the printed columns, rounded; «only if rounded otherwise»: it is another one "
    "that the interval allows."
)


@dataclass(frozen=True)
class Derived:
    """A printed number, and what the numbers it is derived from say.

    Attributes:
        printed: as it is printed.
        value: recomputed from the columns as they are printed.
        low: the least it can be, the columns not yet rounded.
        high: the most.
    """

    printed: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Whether the printed number is the rounded value; if not, whether it lies in the interval, rounded."""
        printed, half = float(self.printed), half_unit(self.printed)
        if abs(printed - self.value) <= half + TIE:
            return "follows"
        if self.low - half - TIE <= printed <= self.high + half + TIE:
            return "only if rounded otherwise"
        return "cannot follow"

    def finding(self, where: str, what: str, how: str) -> Finding:
        """As a finding about `what`, e.g. ``average``."""
        computed = f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f} before the columns were rounded)"
        numbers = {"printed": float(self.printed), "value": self.value, "low": self.low, "high": self.high}
        return Finding(where, f"{what} {self.printed}", computed, self.verdict, how, numbers)


def mean(columns: Sequence[str], printed: str) -> Derived:
    """A printed average and its columns."""
    value = sum(map(float, columns)) / len(columns)
    half = sum(map(half_unit, columns)) / len(columns)
    return Derived(printed, value, value - half, value + half)


def delta_m(
    columns: Mapping[str, str], baseline: Mapping[str, str], better: Mapping[str, bool], printed: str
) -> Derived:
    """A printed Δm, its columns, and those of the single-task row.

    Each metric's part of Δm is monotone in the metric and, for positive metrics, in the baseline: its extremes are at
    the ends of both.
    """
    value, low, high = (_corner(columns, baseline, better, side) for side in (0, -1, 1))
    return Derived(printed, value, low, high)


def _corner(columns: Mapping[str, str], baseline: Mapping[str, str], better: Mapping[str, bool], side: int) -> float:
    """Δm where each number is half a unit off to the side that makes Δm smaller (-1) or larger (1)."""
    worse = {name: side * (-1 if better[name] else 1) for name in baseline}
    off = {name: float(text) + worse[name] * half_unit(text) for name, text in columns.items()}
    base = {name: float(text) - worse[name] * half_unit(text) for name, text in baseline.items()}
    return Baseline(STL, base, better).delta_m(off)


def tables() -> list[tuple[str, Printed]]:
    """The tables with a column Δm, each with its section; those of the SAGE paper first."""
    *sage_and_nyu, cityscapes = scenes()
    named = [("Table 2", sage_and_nyu[0]), ("Table 2", sage_and_nyu[1])]
    return [*named, ("F-MTL Table 3", cityscapes), ("F-MTL Table 4", sage_and_nyu[2]), ("F-MTL Table 5", aggregation())]


def findings() -> Iterator[Finding]:
    """One finding for each average and each Δm of Tables 1 and 2, and of F-MTL's Tables 1 and 3 to 7."""
    for section, name, keys, averages in AVERAGES:
        for row in rows(name):
            for column, (dataset, parts) in averages.items():
                where = ", ".join(part for part in (section, dataset, *(row[key] for key in keys)) if part)
                yield mean([row[part] for part in parts], row[column]).finding(where, "average", HOW_AVERAGE)
    for section, table in tables():
        for method, printed in table.delta_m.items():
            derived = delta_m(table.cells[method], table.cells[STL], table.baseline.higher_is_better, printed)
            yield derived.finding(f"{section}, {table.dataset}, {method}", "Δm", HOW_DELTA_M)
    for section, name in SCORES:
        yield from _scores(section, rows(name))


def _scores(section: str, printed: Sequence[Mapping[str, str]]) -> Iterator[Finding]:
    """The averages over two tasks that stand in a row of their own below them."""
    by_row = {(row["method"], row["task"]): row for row in printed}
    for method in dict.fromkeys(row["method"] for row in printed):
        first, second, average = (by_row[method, task] for task in ("top_left", "bottom_right", "average"))
        for dataset in [name for name in average if name not in ("method", "task")]:
            derived = mean([first[dataset], second[dataset]], average[dataset])
            yield derived.finding(f"{section}, {dataset}, {method}", "average", HOW_AVERAGE)
