"""Write tables as Markdown, LaTeX, CSV and plain text."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from domainbed_sage.core.files import write_atomically
from domainbed_sage.results import picture
from domainbed_sage.results.expected import environment_names
from domainbed_sage.results.records import RunRecord
from domainbed_sage.results.tables import Grid, Table

WIDTH = 80  # columns of a terminal
PREAMBLE = "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}\n"

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "→": r"$\to$",
    **{character: f"\\{character}" for character in "_%&#${}"},
}


def escape_latex(text: str) -> str:
    """Escape the characters that LaTeX gives a meaning."""
    return "".join(_LATEX.get(character, character) for character in text)


def escape_markdown(text: str) -> str:
    """Escape the characters that would end a cell or start emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


def best(grid: Grid) -> pd.DataFrame:
    """Which cells are the best of their column at the printed precision.

    All of them on ties; none in a table of one row; a mean that lacks trials does not compete.
    """
    complete = grid.cells.map(lambda cell: cell.complete)
    shown = grid.means.round(1).where(complete)
    return shown.eq(shown.max()) & complete & (len(shown) > 1)


def markdown_grid(strings: pd.DataFrame, bold: pd.DataFrame | None = None) -> str:
    """A pipe table: first column left-aligned, the others centred."""
    head = [str(strings.index.name), *strings.columns]
    lines = [head, [":--", *(":-:" for _ in strings.columns)]]
    for row, (name, *cells) in enumerate(strings.itertuples()):
        marks = [bold is not None and bool(bold.iat[row, column]) for column in range(len(cells))]
        texts = [escape_markdown(cell) for cell in cells]
        lines.append(
            [escape_markdown(name), *(f"**{t}**" if mark else t for t, mark in zip(texts, marks, strict=True))]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex_grid(strings: pd.DataFrame, caption: str, label: str, bold: pd.DataFrame | None = None) -> str:
    """A complete `table` environment, shrunk to the width of the text where it is wider."""
    lines = []
    for row, (name, *cells) in enumerate(strings.itertuples()):
        marks = [bold is not None and bool(bold.iat[row, column]) for column in range(len(cells))]
        texts = [escape_latex(cell) for cell in cells]
        strong = [f"\\textbf{{{t}}}" if mark else t for t, mark in zip(texts, marks, strict=True)]
        lines.append(" & ".join([escape_latex(name), *strong]) + r" \\")
    head = " & ".join(escape_latex(name) for name in [str(strings.index.name), *strings.columns])
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            f"\\caption{{{escape_latex(caption)}}}",
            f"\\label{{{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'c' * len(strings.columns)}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )


def text_grid(strings: pd.DataFrame) -> str:
    """Columns aligned with blanks."""
    rows = [[str(strings.index.name), *strings.columns], *([name, *cells] for name, *cells in strings.itertuples())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """All grids under headings, then the footer; best of each column bold."""
    parts = [f"# Model selection: {table.method.title}"]
    for grid in (*table.grids, table.averages):
        parts += [f"## {grid.title}", markdown_grid(grid.strings("±"), best(grid)), caption(table, grid)]
    return "\n\n".join([*parts, *markdown_list(table.footer)]) + "\n"


def markdown_list(sentences: Sequence[str]) -> list[str]:
    """Sentences as one bulleted list; empty when there are none."""
    lines = [f"- {escape_markdown(sentence)}" for sentence in sentences]
    return ["\n".join(lines)] if lines else []


def latex(table: Table) -> str:
    """One `latex_grid` per grid; the sentences of the footer as paragraphs."""
    parts = [
        latex_grid(grid.strings("±"), caption(table, grid), f"tab:{table.method.name}:{grid.title}", best(grid))
        for grid in (*table.grids, table.averages)
    ]
    parts += [escape_latex(sentence) for sentence in table.footer]
    return PREAMBLE + "\n\n".join(parts) + "\n"


def csv(table: Table) -> str:
    """One row per selected number, at full precision; accuracies in [0, 1]."""
    return table.results.to_csv(index=False, lineterminator="\n")


def text(table: Table) -> str:
    """For a terminal: 80 columns wide for datasets of up to four environments with short names."""
    parts = []
    for grid in (*table.grids, table.averages):
        body = text_grid(grid.strings())
        if max(map(len, body.splitlines())) > WIDTH:
            body = text_grid(grid.strings(short=True))
            body += "\n* trials missing, see below" * ("*" in body)
        subject = "Averages" if grid is table.averages else f"Dataset: {grid.title}"
        parts.append(f"-------- {subject}, model selection method: {table.method.title}\n{body}")
    return "\n\n".join([*parts, *paragraph(table.footer)]) + "\n"


def paragraph(sentences: Sequence[str]) -> list[str]:
    """Sentences one below the other, wrapped for a terminal; empty when there are none."""
    lines = [textwrap.fill(sentence, WIDTH, subsequent_indent="  ") for sentence in sentences]
    return ["\n".join(lines)] if lines else []


def caption(table: Table, grid: Grid) -> str:
    """What a grid shows: measure, model selection, trials."""
    what = "Average over the held-out environments" if grid is table.averages else f"{grid.title}, held-out environment"
    trials = f"trial {grid.trials[0]}" if len(grid.trials) == 1 else f"trials {', '.join(map(str, grid.trials))}"
    marks = [cell for cell in grid.cells.to_numpy().ravel() if not cell.complete]
    unknown = " X: results are missing; (n/m): n of m trials." if marks else ""
    return (
        f"{what}: accuracy in percent, mean ± standard error over {trials}. "
        f"Model selection: {table.method.title}.{unknown}"
    )


def write_all(
    table: Table, folder: Path, *, stem: str = "table", chance: Mapping[str, float] | None = None
) -> list[Path]:
    """Write `stem`.md, .tex, .csv and .png into `folder`, each complete or not at all.

    Args:
        table: what to write.
        folder: made where it does not exist.
        stem: file name without its ending.
        chance: accuracy of guessing on each dataset, percent, drawn as a line in the picture.
    """
    texts = {".md": markdown(table), ".tex": latex(table), ".csv": csv(table)}
    paths = [write_atomically(folder / f"{stem}{ending}", content) for ending, content in texts.items()]
    return [*paths, write_atomically(folder / f"{stem}.png", picture.dots(table, chance))]


def curves(records: Sequence[RunRecord], folder: Path, *, labels: Mapping[str, Sequence[str]] | None = None) -> Path:
    """Draw training curves, see `picture.curves`, into `folder`/curves.png.

    Args:
        records: the runs.
        folder: made where it does not exist.
        labels: environment names of each dataset whose records do not name them.
    """
    return write_atomically(folder / "curves.png", picture.curves(records, environment_names(records, (), labels)))
