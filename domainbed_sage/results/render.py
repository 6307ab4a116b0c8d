"""Write tables as Markdown, LaTeX, CSV and plain text."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from domainbed_sage.core.files import write_atomically
from domainbed_sage.results import escape
from domainbed_sage.results.intervals import STANDARD_ERROR
from domainbed_sage.results.tables import Grid, Table

WIDTH = 80  # columns of a terminal
PREAMBLE = "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}\n"


def best(grid: Grid) -> pd.DataFrame:
    """Which cells are the best of their column at the printed precision.

    All of them on ties; none in a table of one row; a mean that lacks trials does not compete.
    """
    complete = grid.cells.map(lambda cell: cell.complete)
    shown = grid.means.round(1).where(complete)
    return shown.eq(shown.max()) & complete & (len(shown) > 1)


def markdown_grid(strings: pd.DataFrame, bold: pd.DataFrame | None = None) -> str:
    """A pipe table: first column left-aligned, the others centred."""
    head, *rows = _cells(strings, escape.markdown, "**{}**", bold)
    return tabulate(rows, head, "pipe", disable_numparse=True, colalign=("left", *("center" for _ in strings.columns)))


def latex_grid(strings: pd.DataFrame, caption: str, label: str, bold: pd.DataFrame | None = None) -> str:
    """A complete `table` environment, shrunk to the width of the text where it is wider."""
    head, *rows = (" & ".join(cells) + r" \\" for cells in _cells(strings, escape.latex, r"\textbf{{{}}}", bold))
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            f"\\caption{{{escape.latex(caption)}}}",
            f"\\label{{{escape.latex_label(label)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'c' * len(strings.columns)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *("{}" + row if row.startswith(("[", "*")) else row for row in rows),  # else arguments of the \\ before
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )


def text_grid(strings: pd.DataFrame) -> str:
    """Columns aligned with spaces."""
    return tabulate(_cells(strings, escape.printable), tablefmt="plain", disable_numparse=True)


def text_blocks(strings: pd.DataFrame, kept: int = 0) -> str:
    """As `text_grid`, in blocks of columns that fit a terminal, one below the other.

    Args:
        strings: the cells.
        kept: so many columns from the left are in every block.
    """
    left, others = list(range(kept)), list(range(kept, strings.shape[1]))
    blocks = []
    while others:
        here = max((n for n in range(2, len(others) + 1) if _fits(strings.iloc[:, left + others[:n]])), default=1)
        blocks.append(text_grid(strings.iloc[:, left + others[:here]]))
        others = others[here:]
    return "\n\n".join(blocks)


def _fits(strings: pd.DataFrame) -> bool:
    return max(map(len, text_grid(strings).splitlines())) <= WIDTH


def _cells(
    strings: pd.DataFrame, escaped: Callable[[str], str], strong: str = "{}", bold: pd.DataFrame | None = None
) -> Iterator[list[str]]:
    """The head and the rows as escaped strings; `strong` is the pattern of the bold ones."""
    yield [escaped(str(name)) for name in (strings.index.name, *strings.columns)]
    marks = np.zeros(strings.shape, bool) if bold is None else bold.to_numpy()
    for (name, *cells), marked in zip(strings.itertuples(), marks, strict=True):
        texts = (strong.format(escaped(t)) if mark else escaped(t) for t, mark in zip(cells, marked, strict=True))
        yield [escaped(name), *texts]


def markdown(table: Table) -> str:
    """All grids under headings, then the footer; best of each column bold."""
    parts = [f"# Model selection: {table.method.title}"]
    for grid in (*table.grids, table.averages):
        title, below = escape.markdown(grid.title), escape.markdown(caption(table, grid))
        parts += [f"## {title}", markdown_grid(grid.strings("±"), best(grid)), below]
    return "\n\n".join([*parts, *markdown_list(table.footer)]) + "\n"


def markdown_list(sentences: Sequence[str]) -> list[str]:
    """Sentences as one bulleted list; empty when there are none."""
    lines = [f"- {escape.markdown(sentence)}" for sentence in sentences]
    return ["\n".join(lines)] if lines else []


def latex(table: Table) -> str:
    """One `latex_grid` per grid; the sentences of the footer as paragraphs."""
    parts = [
        latex_grid(grid.strings("±"), caption(table, grid), f"tab:{table.method.name}:{grid.title}", best(grid))
        for grid in (*table.grids, table.averages)
    ]
    parts += [escape.latex(sentence) for sentence in table.footer]
    return PREAMBLE + "\n\n".join(parts) + "\n"


def csv(table: Table) -> str:
    """One row per selected number, at full precision, accuracies in [0, 1]; with intervals, one row per cell."""
    return csv_text(table.results if table.spread is STANDARD_ERROR else _cell_frame(table))


def _cell_frame(table: Table) -> pd.DataFrame:
    """The cells of all grids, in percent."""
    rows = [
        (grid.title, algorithm, column, cell.mean, cell.err, cell.trials, cell.expected)
        for grid in (*table.grids, table.averages)
        for algorithm, row in grid.cells.to_dict("index").items()
        for column, cell in row.items()
    ]
    return pd.DataFrame(
        rows, columns=["table", "algorithm", "column", "mean", table.spread.column, "trials", "expected_trials"]
    )


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV; its strings without control characters."""
    printed = frame.map(lambda value: escape.printable(value) if isinstance(value, str) else value)
    return printed.to_csv(index=False, lineterminator="\n")


def text(table: Table) -> str:
    """For a terminal: 80 columns wide, in several blocks of columns where a dataset has many environments.

    The averages of a single dataset stand in its own table already.
    """
    parts = []
    for grid in table.grids if len(table.grids) == 1 else (*table.grids, table.averages):
        body = text_grid(grid.strings())
        if not _fits(grid.strings()):
            body = text_blocks(grid.strings(short=True))
            body += "\n* trials missing, see below" * ("*" in body)
        subject = "Averages" if grid is table.averages else f"Dataset: {escape.printable(grid.title)}"
        parts.append(f"{_heading(subject, table.method.title)}\n{body}")
    return "\n\n".join([*parts, *paragraph(table.footer)]) + "\n"


def _heading(subject: str, selection: str) -> str:
    """DomainBed's line above a table, in two where it would be wider than the terminal."""
    first, second = f"-------- {subject},", f"model selection method: {selection}"
    line = f"{first} {second}"
    return line if len(line) <= WIDTH else f"{first}\n         {second}"


def paragraph(sentences: Sequence[str]) -> list[str]:
    """Sentences one below the other, wrapped for a terminal; empty when there are none."""
    lines = [textwrap.fill(escape.printable(sentence), WIDTH, subsequent_indent="  ") for sentence in sentences]
    return ["\n".join(lines)] if lines else []


def caption(table: Table, grid: Grid) -> str:
    """What a grid shows: measure, model selection, trials."""
    what = "Average over the held-out environments" if grid is table.averages else f"{grid.title}, held-out environment"
    trials = f"mean ± {table.spread.title} over trials {', '.join(map(str, grid.trials))}"
    if len(grid.trials) == 1:
        trials = f"trial {grid.trials[0]} only"
    marks = [cell for cell in grid.cells.to_numpy().ravel() if not cell.complete]
    unknown = " X: results are missing; (n/m): n of m trials." if marks else ""
    return f"{what}: accuracy in percent, {trials}. Model selection: {table.method.title}.{unknown}"


def write_all(table: Table, folder: Path, *, stem: str = "table") -> list[Path]:
    """Write `stem`.md, .tex and .csv into `folder`, made if it does not exist; each complete or not at all."""
    texts = {".md": markdown(table), ".tex": latex(table), ".csv": csv(table)}
    return [write_atomically(folder / f"{stem}{ending}", content) for ending, content in texts.items()]
