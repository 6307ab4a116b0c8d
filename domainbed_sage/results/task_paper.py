"""Our table of several tasks beside the printed ones of the same dataset."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from domainbed_sage.core.files import write_atomically
from domainbed_sage.results import render
from domainbed_sage.results.delta_m import Implied
from domainbed_sage.results.printed_fmtl import aggregation, digits, faces
from domainbed_sage.results.printed_tasks import Printed, scenes
from domainbed_sage.results.task_tables import DELTA, TaskTable, written

# Printed names of rows, and how runs without a plan are called, by one name; other names stand for themselves.
ONE_NAME: Mapping[str, str] = MappingProxyType(
    {"IMTL": "IMTL-G", "F-IMTL": "F-IMTL-G", "F-MTL(F-IMTL)": "F-IMTL-G", "Ours (direct)": "F-MGDA direct"}
)
PREFIXES: Mapping[str, str] = MappingProxyType({"ERM-": "", "F-MTL-": "F-", "SAGE_SAMO-": "SAGE-SAMO-"})
# Rows that the paper does not say enough of: no row of ours stands beside them.
NO_COUNTERPART = ("ERM", "Ours", "Ours (individual)")
OTHER_DATA: Mapping[str, str] = MappingProxyType({"MultiMNIST": "MultiMNISTPareto"})  # ours, and what is printed
DELTAS = ("Δm printed", "Δm implied", "Δm ours")


@dataclass(frozen=True)
class TaskComparison:
    """One printed table, and our rows beside its rows.

    Attributes:
        printed: the table.
        ours: our table of that dataset, or of one that takes its place.
    """

    printed: Printed
    ours: TaskTable

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Printed rows with ours of the same method, empty where there is none; then our other rows."""
        by_name = {_one_name(str(row)): str(row) for row in self.ours.means.index}
        matches = {row: "" if row in NO_COUNTERPART else by_name.get(_one_name(row), "") for row in self.printed.cells}
        others = [str(row) for row in self.ours.means.index if str(row) not in matches.values()]
        return [*matches.items(), *(("", own) for own in others)]

    @cached_property
    def implied(self) -> dict[str, Implied]:
        """See `Printed.implied`."""
        return self.printed.implied()

    @property
    def columns(self) -> list[str]:
        """The printed columns, by our names."""
        return list(next(iter(self.printed.cells.values())))

    def measured(self, row: str) -> dict[str, float]:
        """Our numbers in these columns, and Δm where one is printed; NaN where there is none."""
        means = {str(name): float(value) for name, value in self.ours.means.T[row].items()} if row else {}
        found = {name: means[name] if name in means else _mean(means, name) for name in self.columns}
        return found | ({DELTA: means.get(DELTA, math.nan)} if self.printed.delta_m else {})

    def frame(self) -> pd.DataFrame:
        """One row for each method and column: as printed, of Δm what the columns imply, and ours."""
        rows = []
        for row, own in self.pairs:
            implied, cells = self.implied.get(row), self.printed.cells.get(row, {})
            for name, ours in self.measured(own).items():
                of_delta = name == DELTA and implied is not None
                printed = implied.printed if implied and of_delta else cells.get(name, "")
                verdict = (implied.delta_m, implied.follows) if implied and of_delta else (math.nan, "")
                rows.append((row, own, name, printed, *verdict, ours))
        columns = ["method", "our_row", "column", "printed", "implied_by_columns", "follows", "ours"]
        return pd.DataFrame(rows, columns=columns).assign(table=self.printed.title, dataset=self.ours.dataset)

    def strings(self) -> pd.DataFrame:
        """A line for each printed row, and one below it for ours; ``*`` marks a Δm that cannot follow."""
        lines = [line for row, own in self.pairs for line in self._lines(row, own)]
        arrows = {name: "↑" if up else "↓" for name, up in self.ours.higher_is_better.items()}
        heads = [f"{name.removeprefix('test_')} {arrows.get(name, '')}".strip() for name in self.columns]
        index = pd.Index([name for name, _ in lines], name="Method")
        return pd.DataFrame([cells for _, cells in lines], index, ["", *heads, *self._deltas(*DELTAS)])

    def _lines(self, row: str, own: str) -> Iterator[tuple[str, list[str]]]:
        if row:
            implied = self.implied.get(row)
            deltas = (implied.printed + "*" * (not implied.follows), f"{implied.delta_m:.2f}") if implied else ("", "")
            yield row, ["paper", *self.printed.cells[row].values(), *self._deltas(*deltas, "")]
        if own:
            measured = self.measured(own)
            numbers = [written(measured[name]) for name in self.columns]
            delta = self._deltas("", "", written(measured.get(DELTA, math.nan)))
            yield "" if row else own, ["ours", *numbers, *delta]

    def _deltas(self, *cells: str) -> Sequence[str]:
        """The last three columns; none where no Δm is printed."""
        return cells if self.printed.delta_m else ()

    def notes(self) -> Iterator[str]:
        """What to know when reading the two side by side."""
        yield f"Printed: {self.printed.title}."
        if self.printed.dataset != self.ours.dataset:
            yield f"Printed for other data, {self.printed.dataset}; ours is {self.ours.dataset}."
        implied = self.implied
        if implied:
            yield (
                "Δm printed is the paper's. Δm implied is that of its printed columns against its printed row STL, Δm "
                "ours that of our runs against our row STL."
            )
        wrong = [
            f"{row} ({one.printed}, columns imply {one.delta_m:.2f} ± {one.half_width:.2f})"
            for row, one in implied.items()
            if not one.follows
        ]
        if wrong:
            yield f"* further from what the printed columns imply than rounding explains: {', '.join(wrong)}."
        elif implied:
            yield "Every printed Δm follows from its columns within rounding."
        both = sum(bool(row and own) for row, own in self.pairs)
        yield f"Printed rows with one of ours: {both} of {len(self.printed.cells)}."
        if alone := [row for row in self.printed.cells if row in NO_COUNTERPART]:
            yield f"{' and '.join(alone)}: as printed; no row of ours stands for them."


def printed_tables() -> list[Printed]:
    """All printed tables of several tasks: SAGE's, then F-MTL's by their numbers."""
    sage, fmtl = scenes()[:2], scenes()[2:]
    accuracy, *calibration = digits()
    return [*sage, accuracy, faces(), *fmtl, aggregation(), *calibration]


def compare(table: TaskTable) -> list[TaskComparison]:
    """Our table beside every printed one of its dataset; empty if none is printed."""
    printed_for = OTHER_DATA.get(table.dataset, table.dataset)
    return [TaskComparison(one, table) for one in printed_tables() if one.dataset == printed_for]


def nothing(table: TaskTable) -> str:
    """The sentence for a dataset that no paper has a table of."""
    known = dict.fromkeys([one.dataset for one in printed_tables()] + list(OTHER_DATA))
    return f"Nothing is printed for {table.dataset}. There are printed tables of {', '.join(known)}."


def text(comparison: TaskComparison) -> str:
    """For a terminal."""
    head, body = f"-------- {_caption(comparison)}", render.text_blocks(comparison.strings(), kept=1)
    notes = render.paragraph(list(comparison.notes()))
    return "\n\n".join(["\n".join([*render.paragraph([head]), body]), *notes]) + "\n"


def markdown(comparison: TaskComparison) -> str:
    """A pipe table and the notes."""
    grid = render.markdown_grid(comparison.strings())
    return "\n\n".join([f"## {_caption(comparison)}", grid, *render.markdown_list(list(comparison.notes()))]) + "\n"


def plain(comparison: TaskComparison) -> dict[str, Any]:
    """As plain values, for JSON; NaN where something is missing."""
    rows = comparison.frame().drop(columns=["table", "dataset"]).to_dict("records")
    return {"table": comparison.printed.title, "rows": rows, "notes": list(comparison.notes())}


def write_all(comparisons: Sequence[TaskComparison], folder: Path) -> list[Path]:
    """Write `paper_tasks`.md and .csv into `folder`, each complete or not at all."""
    if not comparisons:
        return []
    csv = render.csv_text(pd.concat([one.frame() for one in comparisons]))
    return [
        write_atomically(folder / "paper_tasks.md", "\n".join(map(markdown, comparisons))),
        write_atomically(folder / "paper_tasks.csv", csv),
    ]


def _caption(comparison: TaskComparison) -> str:
    return f"{comparison.ours.dataset}, beside {comparison.printed.title.split(' of ')[0]}"


def _one_name(row: str) -> str:
    """The one name of a row's method."""
    prefix = next((prefix for prefix in PREFIXES if row.startswith(prefix)), "")
    name = PREFIXES.get(prefix, "") + row.removeprefix(prefix)
    return ONE_NAME.get(name, name)


def _mean(means: Mapping[str, float], name: str) -> float:
    """A printed mean over all tasks, such as ``test_mean_accuracy``; the error is what accuracy lacks to 100 %."""
    metric = name.removeprefix("test_mean_")
    if metric == "error":
        return 100 - _mean(means, "test_mean_accuracy")
    values = [value for column, value in means.items() if column.endswith(f"_{metric}")]
    return sum(values) / len(values) if values else math.nan
