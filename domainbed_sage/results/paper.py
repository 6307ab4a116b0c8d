"""Our averages beside Table 1 of the SAGE paper, as printed."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from domainbed_sage.core.files import write_atomically
from domainbed_sage.core.resources import shipped
from domainbed_sage.results import escape, protocols, render
from domainbed_sage.results.intervals import Spread
from domainbed_sage.results.records import RunRecord
from domainbed_sage.results.selection import Method
from domainbed_sage.results.tables import AVERAGE, Cell, Table, average

DATASETS = ("PACS", "VLCS", "OfficeHome", "TerraIncognita", "DomainNet")
ROUNDING = 0.1  # numbers printed to 0.1 shift an average by up to 0.05, and the average itself is rounded by as much
NOTES = (
    'Printed numbers: Table 1 of "Flatness and Gradient Alignment Are Both Necessary" (SAGE, arXiv:2605.07914); '
    "it prints no standard errors.",
    "Only the SAGE row was printed for fine-tuning with training-domain validation. The paper takes the other rows "
    "from the BOA paper, whose protocol, by public accounts, is CLIP with visual prompt tuning and a validation set of "
    "the test domain; of the GGA row it does not say. A difference is shown where both numbers are of one protocol.",
    "SAGE's 85.5 on VLCS is printed in bold although BOA's 86.5 is higher.",
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Our numbers and the printed ones; all in percent.

    Attributes:
        method: how ours were selected.
        spread: what the ± of ours stands for.
        ours: a `Cell` for each algorithm (index) and dataset, and the column "Avg" over these five datasets.
        printed: the printed numbers, "Avg" as printed and "recomputed" (the mean of the row); NaN for our own rows.
        same_protocol: whether our runs of an algorithm (index) and the printed row follow one protocol.
        notes: what to know when reading the two side by side.
    """

    method: Method
    spread: Spread
    ours: pd.DataFrame
    printed: pd.DataFrame
    same_protocol: "pd.Series[bool]"
    notes: tuple[str, ...]

    @property
    def differences(self) -> pd.DataFrame:
        """Ours minus printed, in points; NaN where one is not there, or of another protocol."""
        points = self.ours.map(lambda cell: cell.mean).astype(float) - self.printed[list(self.ours.columns)]
        return points.where(self.same_protocol, math.nan, axis=0)

    def strings(self, sign: str = "+/-", none: str = "-") -> pd.DataFrame:
        """Up to three lines an algorithm: ours, paper, and their difference; ``*`` marks an impossible average."""
        lines = [line for algorithm in self.ours.index for line in self._lines(str(algorithm), sign, none)]
        columns = ["", *self.ours.columns, "Avg recomputed"]
        return pd.DataFrame([cells for _, cells in lines], pd.Index([n for n, _ in lines], name="Algorithm"), columns)

    def _lines(self, algorithm: str, sign: str, none: str) -> Iterator[tuple[str, list[str]]]:
        cells: list[Cell] = self.ours.T[algorithm].to_list()
        texts = [none if math.isnan(cell.mean) else cell.text(sign) for cell in cells]
        yield algorithm, ["ours", *texts, ""]
        row = self.printed.T[algorithm]
        if not math.isnan(row[AVERAGE]):
            mark = "" if possible(row[AVERAGE], row["recomputed"]) else "*"
            numbers = [f"{row[column]:.1f}" for column in self.ours.columns]
            yield "", ["paper", *numbers[:-1], numbers[-1] + mark, f"{row['recomputed']:.1f}"]
        differences = self.differences.T[algorithm].to_list()
        if not all(map(math.isnan, differences)):
            yield "", ["diff", *(none if math.isnan(points) else f"{points:+.1f}" for points in differences), ""]


def printed_table() -> pd.DataFrame:
    """Table 1 as printed, by our names of the algorithms: the datasets, "Avg", and "recomputed", all in percent."""
    raw = pd.read_csv(shipped("results/paper/table1.csv"), index_col="algorithm")
    numbers = raw[list(DATASETS)].astype(float)
    return numbers.assign(**{AVERAGE: raw["avg_printed"].astype(float), "recomputed": numbers.mean(axis=1)})


def printed_protocols() -> "pd.Series[str]":
    """The protocol of every printed row, a key of `protocols.TITLES`; empty where it is not stated."""
    raw = pd.read_csv(shipped("results/paper/table1.csv"), index_col="algorithm", keep_default_na=False)
    return raw["protocol"]


def possible(printed_average: float, recomputed: float) -> bool:
    """Whether rounding alone can explain the difference."""
    return abs(printed_average - recomputed) <= ROUNDING + 1e-9


def compare(table: Table, records: Iterable[RunRecord]) -> Comparison:
    """Put the averages of a table beside the printed ones; `records` are the runs that it was made of.

    All rows of the paper, in its order, then our other algorithms. The average is over the five datasets of the paper,
    "-" unless all are there; our other datasets are left out, with a note.
    """
    cells, printed = table.averages.cells, printed_table()
    algorithms = [*printed.index, *(name for name in cells.index if name not in printed.index)]
    rows = []
    for algorithm in algorithms:
        there = [algorithm in cells.index and dataset in cells.columns for dataset in DATASETS]
        row = [cells.loc[algorithm, d] if has else Cell() for d, has in zip(DATASETS, there, strict=True)]
        rows.append([*row, average(row)])
    index = pd.Index(algorithms, name="Algorithm")
    ours = pd.DataFrame(rows, index, [*DATASETS, AVERAGE], dtype=object)
    others = [str(name) for name in cells.columns if name not in (*DATASETS, AVERAGE)]
    theirs, own = printed_protocols(), protocols.followed(records, table.method)
    same = pd.Series([name in own and own[name] == theirs.get(name) for name in algorithms], index, dtype=bool)
    notes = tuple(_notes(table, printed, others, own))
    return Comparison(table.method, table.spread, ours, printed.reindex(index), same, notes)


def _notes(table: Table, printed: pd.DataFrame, others: list[str], own: dict[str, str]) -> Iterator[str]:
    for name, row in printed.to_dict("index").items():
        if not possible(row[AVERAGE], row["recomputed"]):
            yield (
                f"* {name}: the printed average is {row[AVERAGE]:.1f}, but its five numbers average "
                f"{row['recomputed']:.2f}; rounding explains at most {ROUNDING}."
            )
    yield from NOTES
    followed = [protocols.TITLES[kind] for kind in protocols.TITLES if kind in own.values()]
    yield f"Ours: {'; '.join(followed) or f'selected by {table.method.title}, which no printed row is'}."
    if others:
        yield f"Not in the paper, left out: {', '.join(others)}."
    yield from table.footer


def markdown(comparison: Comparison) -> str:
    """A pipe table and the notes."""
    body = render.markdown_grid(comparison.strings("±", "–"))
    return "\n\n".join([f"# {_caption(comparison)}", body, *render.markdown_list(comparison.notes)]) + "\n"


def latex(comparison: Comparison) -> str:
    """A booktabs table, with the notes below as paragraphs."""
    body = render.latex_grid(comparison.strings("±", "–"), _caption(comparison), f"tab:paper:{comparison.method.name}")
    notes = [escape.latex(note) for note in comparison.notes]
    return render.PREAMBLE + "\n\n".join([body, *notes]) + "\n"


def text(comparison: Comparison) -> str:
    """For a terminal, 80 columns wide: the columns are in blocks, one below the other."""
    body, caption = (
        render.text_blocks(comparison.strings(), kept=1),
        render.paragraph([f"-------- {_caption(comparison)}"]),
    )
    return "\n\n".join(["\n".join([*caption, body]), *render.paragraph(comparison.notes)]) + "\n"


def frame(comparison: Comparison) -> pd.DataFrame:
    """One row per algorithm and column, at full precision, percent."""
    rows = []
    for algorithm in comparison.ours.index:
        for column in comparison.ours.columns:
            cell: Cell = comparison.ours.loc[algorithm, column]
            printed = comparison.printed.loc[algorithm, column]
            recomputed = comparison.printed.loc[algorithm, "recomputed"] if column == AVERAGE else math.nan
            measured = (cell.mean, cell.err, cell.trials, cell.expected)
            difference = comparison.differences.loc[algorithm, column]
            rows.append((algorithm, column, *measured, printed, recomputed, difference))
    measured_as = ("mean", comparison.spread.column, "trials", "expected_trials")
    columns = ["algorithm", "dataset", *measured_as, "printed", "printed_recomputed", "difference"]
    return pd.DataFrame(rows, columns=columns)


def csv(comparison: Comparison) -> str:
    """The rows of `frame`."""
    return render.csv_text(frame(comparison))


def write_all(comparison: Comparison, folder: Path, *, stem: str = "paper") -> list[Path]:
    """Write `stem`.md, .tex and .csv into `folder`, each complete or not at all."""
    texts = {".md": markdown(comparison), ".tex": latex(comparison), ".csv": csv(comparison)}
    return [write_atomically(folder / f"{stem}{ending}", body) for ending, body in texts.items()]


def _caption(comparison: Comparison) -> str:
    return f"Reproduction of Table 1 of the SAGE paper. Our model selection: {comparison.method.title}."
