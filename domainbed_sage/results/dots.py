"""A table as a picture: for each column dots with error bars, one line for each method."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from domainbed_sage.results import render
from domainbed_sage.results.looks import Look
from domainbed_sage.results.picture import FAINT, Block, beside, pages, shortened, strips
from domainbed_sage.results.tables import AVERAGE, Cell, Grid, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MOST = 7  # panels side by side
NUMBERS = 0.42  # share of a panel's width that is left for the numbers


class _Column(NamedTuple):
    name: str
    cells: Sequence[Cell]
    best: Sequence[bool]
    chance: float | None


def draw(table: Table, looks: Mapping[str, Look], chance: Mapping[str, float] | None = None) -> "list[Figure]":
    """One row of panels for each grid, one panel for each of its columns, one line for each method.

    Args:
        table: what to draw.
        looks: of each of its labels.
        chance: accuracy of guessing on each dataset, percent: a dashed line, or a note where it is far off.
    """
    grids = (*table.grids, table.averages) if len(table.grids) != 1 else table.grids
    blocks = []
    for grid in grids:
        columns = []
        best = render.best(grid)
        for at, name in enumerate(map(str, grid.cells.columns)):
            subject = name if grid is table.averages else grid.title
            columns.append(
                _Column(name, list(grid.cells.iloc[:, at]), list(best.iloc[:, at]), (chance or {}).get(subject))
            )
        shares = list(strips(len(columns), MOST))
        line = 0.19 if len(grid.cells) <= 8 else 0.14
        height = 0.18 + (0.36 + line * len(grid.cells)) * len(shares)
        blocks.append(Block(height, partial(_grid, grid, columns, looks)))
    title = f"Accuracy on the held-out environment (%), model selection: {table.method.title}"
    return pages(blocks, title, _key(grids, table.spread.title))


def _key(grids: Sequence[Grid], spread: str) -> str:
    cells: list[Cell] = [cell for grid in grids for cell in grid.cells.to_numpy().ravel()]
    marks = [f"bars: {spread} over trials"] if any(cell.err >= 0 for cell in cells) else []
    if len(grids[0].cells) > 1:
        marks.append("bold: best of the column")
    if any(cell.trials < cell.expected and cell.trials for cell in cells):
        marks.append("hollow, *: some trials are missing")
    if any(math.isnan(cell.mean) for cell in cells):
        marks.append("X: no result")
    return "   ".join(marks)


def _grid(grid: Grid, columns: Sequence[_Column], looks: Mapping[str, Look], part: "SubFigure") -> None:
    shares = list(strips(len(columns), MOST))
    labels, with_chance = list(map(str, grid.cells.index)), any(column.chance is not None for column in columns)
    panels = part.subplots(len(shares), max(map(len, shares)), squeeze=False)
    part.suptitle(shortened(grid.title), x=0.01, ha="left", fontweight="bold", fontsize=7.5)
    for share, row in zip(shares, panels, strict=True):
        for panel in row[len(share) :]:
            panel.set_axis_off()
        for at, panel in zip(share, row, strict=False):
            _column(panel, columns[at], [looks[label] for label in labels])
            panel.set_ylim(len(labels) - 0.3 + 0.4 * with_chance, -0.7)
        row[0].set_yticks(range(len(labels)), [shortened(label) for label in labels], fontsize=6.5)
        row[0].tick_params(axis="y", labelleft=True)


def _column(panel: "Axes", column: _Column, looks: Sequence[Look]) -> None:
    _frame(panel, column)
    cells = column.cells
    means, errs = [cell.mean for cell in cells], np.nan_to_num([cell.err for cell in cells])
    colours: Any = [look.colour for look in looks]  # which Matplotlib takes, and does not declare
    panel.errorbar(means, range(len(cells)), xerr=errs, fmt="none", ecolor=colours, elinewidth=0.9)
    for at, (cell, look, best) in enumerate(zip(cells, looks, column.best, strict=True)):
        face = look.colour if cell.complete else "white"
        panel.plot(cell.mean, at, look.marker, color=look.colour, mfc=face, ms=2.7, mew=0.7)
        text = "X" if math.isnan(cell.mean) else f"{cell.mean:.1f}{'' if cell.complete else '*'}"
        weight = "bold" if best else "normal"
        how = {"ha": "right", "va": "center_baseline", "fontsize": 6, "fontweight": weight}
        beside(panel, text, (1, at), (0, 0), xycoords=("axes fraction", "data"), **how)
    panel.set_title(shortened(column.name), fontsize=6.5, pad=3)
    if column.name == AVERAGE:
        panel.set_facecolor("#f5f5f2")


def _frame(panel: "Axes", column: _Column) -> None:
    """Horizontal limits that leave room for error bars on the left and numbers on the right, and chance."""
    from matplotlib.ticker import MaxNLocator

    ranges = [(cell.mean, float(np.nan_to_num(cell.err))) for cell in column.cells if not math.isnan(cell.mean)]
    low = min((mean - err for mean, err in ranges), default=0.0)
    high = max((mean + err for mean, err in ranges), default=100.0)
    chance = column.chance
    if chance is not None and low - 2 * max(high - low, 5) <= chance <= high + 2 * max(high - low, 5):
        low, high = min(low, chance), max(high, chance)
        panel.axvline(chance, color=FAINT, lw=0.9, ls=(0, (3, 2)), zorder=1)
        beside(panel, "chance", (chance, 0), (2, 1), xycoords=("data", "axes fraction"), fontsize=5.5, color=FAINT)
    elif chance is not None:
        beside(panel, f"chance {chance:.1f}", (0, 0), (2, 1), xycoords="axes fraction", fontsize=5.5, color=FAINT)
    margin = max(0.1 * (high - low), 0.3)
    low, high = low - margin, high + margin
    panel.set_xlim(low, low + (high - low) / (1 - NUMBERS))
    panel.set_yticks(range(len(column.cells)))
    panel.tick_params(axis="y", labelleft=False)
    ticks = MaxNLocator(2, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if ranges else ()
    panel.set_xticks([tick for tick in ticks if low <= tick <= high])
