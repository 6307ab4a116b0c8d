"""The table of runs on several tasks as a picture: each metric a panel, each row a line, each trial a dot."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from domainbed_sage.results.looks import looks
from domainbed_sage.results.picture import FAINT, Block, pages, shortened, strips
from domainbed_sage.results.printed_tasks import STL
from domainbed_sage.results.task_runs import TaskRun
from domainbed_sage.results.task_tables import TRIVIAL, TaskTable, row_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MOST = 5  # panels side by side
LINE = 0.125  # inches of a row


def draw(tables: Sequence[TaskTable], runs: Sequence[TaskRun]) -> "list[Figure]":
    """One block for each dataset.

    A dot is a trial, the upright stroke the mean of the row. The broken line is the row of single tasks, the dotted one
    the trivial predictor where the panel reaches that far. The arrow of a title points to where better is.

    Args:
        tables: see `task_tables.build`.
        runs: those that the tables were built of.
    """
    blocks = []
    for table in tables:
        own = [run for run in runs if run.dataset == table.dataset]
        rows = len(list(strips(len(table.means.columns), MOST)))
        height = 0.2 + rows * (0.35 + LINE * len(table.means))

        def block(part: "SubFigure", table: TaskTable = table, own: Sequence[TaskRun] = own) -> None:
            _dataset(part, table, own)

        blocks.append(Block(height, block))
    below = f"dots: trials; strokes: their mean; broken line: {STL}; dotted line: {TRIVIAL}, where it is near"
    return pages(blocks, "Metrics of all tasks; arrows point to what is better", below)


def _dataset(part: "SubFigure", table: TaskTable, runs: Sequence[TaskRun]) -> None:
    part.suptitle(shortened(table.dataset), x=0.01, ha="left", fontweight="bold", fontsize=7.5)
    names = list(table.means.columns)
    shares = list(strips(len(names), MOST))
    panels = part.subplots(len(shares), max(map(len, shares)), squeeze=False, sharey=True)
    shown = [row for row in table.means.index if row != TRIVIAL]
    for line, share in zip(panels, shares, strict=True):
        for panel, at in zip(line, share, strict=False):
            _panel(panel, table, str(names[at]), shown, runs)
        for panel in line[len(share) :]:
            panel.set_axis_off()
        line[0].set_yticks(range(len(shown)), [shortened(row) for row in shown])
        line[0].set_ylim(len(shown) - 0.5, -0.5)


def _panel(panel: "Axes", table: TaskTable, name: str, rows: Sequence[str], runs: Sequence[TaskRun]) -> None:
    from matplotlib.ticker import MaxNLocator

    column = {row: float(value) for row, value in zip(table.means.index, table.means[name], strict=True)}
    colours = looks(rows)
    for at, row in enumerate(rows):
        trials = [run.metrics[name] for run in runs if row_of(run) == row and name in run.metrics]
        panel.plot(trials, [at] * len(trials), ls="", marker="o", ms=2, color=colours[row].colour, alpha=0.5)
        panel.plot([column[row]], [at], ls="", marker="|", ms=6, mew=1.4, color=colours[row].colour)
    low, high = panel.get_xlim()
    for row, dash in ((STL, "--"), (TRIVIAL, ":")):
        if not pd.isna(value := column.get(row, float("nan"))) and low <= value <= high:
            panel.axvline(value, color=FAINT, lw=0.8, ls=dash, zorder=0.5)
    arrow = "→" if table.higher_is_better.get(name) else "←"
    panel.set_title(f"{name.removeprefix('test_').replace('_', ' ')} {arrow}", fontsize=6.5, pad=3)
    panel.set_xlim(low, high)
    panel.xaxis.set_major_locator(MaxNLocator(3))
