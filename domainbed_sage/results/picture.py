"""Pictures of results, as PNG: dots with error bars for a table, and training curves."""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.escape import printable
from domainbed_sage.results.records import RunRecord
from domainbed_sage.results.tables import AVERAGE, Cell, Grid, Table

if TYPE_CHECKING:  # imported where a picture is drawn: that takes as long as everything else that a table needs
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

LONGEST = 32  # characters of a name
_DOT, _BEST, _FAINT, _INK = "#33658a", "#c8553d", "#8a8a8a", "#333333"
_COLOURS = (_DOT, _BEST, "#4f9d69", "#8d6a9f", "#d99a2b", "#3d3d3d", "#5fb3c4", "#b5656b", "#8a8a3c", "#999999")
_MARKS = ("", "o", "^", "s")
_LINES = {"held-out environment": "-", "sources, validation": "--"}
_ASIAN = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC")
_STYLE: Any = {
    "text.parse_math": False,  # a $ in a name is printed as a $
    "text.usetex": False,
    "font.size": 8.0,
    "axes.edgecolor": "#bbbbbb",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "savefig.dpi": 160,
}


def _style() -> Any:
    """Settings of all pictures, with a font for Asian names where this machine has one."""
    from matplotlib import font_manager

    fonts = font_manager.get_font_names()
    return {**_STYLE, "font.family": ["DejaVu Sans", *(name for name in _ASIAN if name in fonts)]}


def dots(table: Table, chance: Mapping[str, float] | None = None) -> bytes:
    """One row of panels per grid, one panel per column, one line per algorithm; PNG.

    Args:
        table: what to draw.
        chance: accuracy of guessing on each dataset, percent: a dashed line, or a note where it is far off.
    """
    import matplotlib
    from matplotlib.figure import Figure

    grids = (*table.grids, table.averages) if len(table.grids) > 1 else table.grids
    columns = max(grid.cells.shape[1] for grid in grids)
    height = 0.95 + 0.3 * len(table.averages.cells)
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(1.2 + 1.75 * columns, 0.8 + height * len(grids)))
        figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.06)
        panels = figure.subplots(len(grids), columns, squeeze=False)
        for grid, row in zip(grids, panels, strict=True):
            for column, panel in enumerate(row):
                if column >= grid.cells.shape[1]:
                    panel.set_axis_off()
                    continue
                name = str(grid.cells.columns[column])
                subject = name if grid is table.averages else grid.title
                _column(panel, shortened(name), list(grid.cells.iloc[:, column]), (chance or {}).get(subject))
            row[0].set_yticks(range(len(grid.cells)), [shortened(name) for name in grid.cells.index], fontsize=8)
            row[0].set_title(shortened(grid.title), loc="left", fontweight="bold", fontsize=9, pad=16)
        figure.suptitle(f"Accuracy on the held-out environment (%), model selection: {table.method.title}", fontsize=9)
        figure.supxlabel(_key(grids, table.spread.title), fontsize=7, color=_FAINT)
        return _png(figure)


def shortened(name: str) -> str:
    """A name as plain text, short enough to leave room for the picture."""
    text = printable(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[1 - LONGEST // 2 :]}"


def _key(grids: Sequence[Grid], spread: str) -> str:
    cells: list[Cell] = [cell for grid in grids for cell in grid.cells.to_numpy().ravel()]
    marks = [f"bars: {spread} over trials"] if any(cell.err >= 0 for cell in cells) else []
    if len(grids[0].cells) > 1:
        marks.append("red: best of the column")
    if any(cell.trials < cell.expected and cell.trials for cell in cells):
        marks.append("hollow, *: some trials are missing")
    if any(np.isnan(cell.mean) for cell in cells):
        marks.append("X: no result")
    return "   ".join(marks)


def _column(panel: "Axes", name: str, cells: Sequence[Cell], chance: float | None) -> None:
    highest = max((round(cell.mean, 1) for cell in cells if cell.complete), default=None)
    for at, cell in enumerate(cells):
        if np.isnan(cell.mean):
            panel.annotate("X", (0.04, at), xycoords=("axes fraction", "data"), va="center", fontsize=7, color=_FAINT)
            continue
        colour = _BEST if len(cells) > 1 and cell.complete and round(cell.mean, 1) == highest else _DOT
        face = colour if cell.complete else "white"
        spread = None if np.isnan(cell.err) else cell.err
        panel.errorbar(
            cell.mean, at, xerr=spread, fmt="o", color=colour, ms=4.5, mfc=face, mew=1.1, elinewidth=1.1, capsize=2
        )
        label = f"{cell.mean:.1f}{'' if cell.complete else '*'}"
        _beside(panel, label, (cell.mean, at), (0, 4.5), ha="center", fontsize=6.5, color=colour)
    _frame(panel, cells, chance)
    _beside(panel, name, (0.5, 1), (0, 4), xycoords="axes fraction", ha="center", fontsize=8)
    if name == AVERAGE:
        panel.set_facecolor("#f5f5f2")


def _frame(panel: "Axes", cells: Sequence[Cell], chance: float | None) -> None:
    """Limits that leave room for error bars and labels; first algorithm on top."""
    ranges = [(cell.mean, float(np.nan_to_num(cell.err))) for cell in cells if not np.isnan(cell.mean)]
    low = min((mean - err for mean, err in ranges), default=0.0)
    high = max((mean + err for mean, err in ranges), default=100.0)
    if chance is not None and low - 2 * max(high - low, 5) <= chance <= high + 2 * max(high - low, 5):
        low, high = min(low, chance), max(high, chance)
        panel.axvline(chance, color=_FAINT, lw=0.9, ls=(0, (3, 2)), zorder=1)
        _beside(panel, "chance", (chance, 0), (2, 2), xycoords=("data", "axes fraction"), fontsize=6, color=_FAINT)
    elif chance is not None:
        _beside(panel, f"chance {chance:.1f}", (0, 0), (3, 2), xycoords="axes fraction", fontsize=6, color=_FAINT)
    margin = max(0.16 * (high - low), 0.5)
    panel.set_xlim(low - margin, high + margin)
    panel.set_ylim(len(cells) - 0.35, -0.75)
    panel.set_yticks(range(len(cells)), [""] * len(cells))
    panel.tick_params(length=0)
    panel.locator_params(axis="x", nbins=3)
    if not ranges:
        panel.set_xticks([])


def _beside(panel: "Axes", text: str, at: tuple[float, float], shift: tuple[float, float], **how: Any) -> None:
    """Write `text` at a place, moved by `shift` points."""
    panel.annotate(text, at, shift, textcoords="offset points", **how)


def curves(records: Sequence[RunRecord], names: Mapping[str, Sequence[str]]) -> bytes:
    """Training curves; PNG.

    For each dataset one row of accuracies (source out-split dashed, held-out environment's in-split solid) and one
    row of losses, one panel per held-out environment, one colour per algorithm. A line is the mean over trials and
    settings; the band goes from the lowest to the highest run.

    Args:
        records: the runs; those that hold out two environments are not drawn.
        names: environment names of each dataset.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    points = _points([run for run in records if run.single])
    algorithms = sorted({run.label for run in records}, key=lambda name: (name != "ERM", name.casefold()))
    looks: dict[str, dict[str, Any]] = {
        name: {"color": _COLOURS[at % len(_COLOURS)], "marker": _MARKS[at // len(_COLOURS) % len(_MARKS)]}
        for at, name in enumerate(algorithms)
    }
    datasets = [name for name in names if (points["dataset"] == name).any()]
    columns = max(len(names[dataset]) for dataset in datasets)
    with matplotlib.rc_context(_style()):
        figure = Figure(figsize=(1.2 + 2.1 * columns, 0.7 + 3.6 * len(datasets) + 0.18 * (len(algorithms) // 6)))
        figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.05)
        panels = figure.subplots(2 * len(datasets), columns, squeeze=False, sharex="row")
        for at, dataset in enumerate(datasets):
            rows = panels[2 * at : 2 * at + 2]
            _dataset_curves(rows, points[points["dataset"] == dataset], dataset, names[dataset], looks)
        lines = [Line2D([], [], lw=1.4, ms=3, label=shortened(name), **look) for name, look in looks.items()]
        lines += [Line2D([], [], color=_INK, lw=1.2, ls=style, label=what) for what, style in _LINES.items()]
        figure.legend(handles=lines, loc="outside upper center", ncols=min(len(lines), 6), frameon=False, fontsize=7.5)
        return _png(figure)


def _points(runs: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per evaluation: dataset, algorithm, held-out environment, step, and the three curves."""
    if not runs:
        raise UserError("There are no training curves: no run holds out a single environment.")
    lengths = [len(run.steps) for run in runs]
    envs = [run.test_envs[0] for run in runs]
    held_out = [run.in_acc[:, env] for run, env in zip(runs, envs, strict=True)]
    sources = [np.delete(run.out_acc, env, axis=1).mean(axis=1) for run, env in zip(runs, envs, strict=True)]
    curves = zip(_LINES, (100 * np.concatenate(held_out), 100 * np.concatenate(sources)), strict=True)

    return pd.DataFrame(
        {
            "dataset": np.repeat([run.dataset for run in runs], lengths),
            "algorithm": np.repeat([run.label for run in runs], lengths),
            "env": np.repeat(envs, lengths),
            "step": np.concatenate([run.steps for run in runs]),
            **dict(curves),
            "loss": np.concatenate([run.loss for run in runs]),
        }
    )


def _dataset_curves(
    rows: Any, points: pd.DataFrame, dataset: str, names: Sequence[str], looks: Mapping[str, Mapping[str, Any]]
) -> None:
    for env, (upper, lower) in enumerate(rows.T):
        if env >= len(names):
            upper.set_axis_off()
            lower.set_axis_off()
            continue
        here = points[points["env"] == env]
        for algorithm, look in looks.items():
            by_step = here[here["algorithm"] == algorithm].groupby("step")
            for curve, style in _LINES.items():
                _line(upper, by_step[curve], {**look, "ls": style})
            _line(lower, by_step["loss"], look)
        upper.set_title(f"held out: {shortened(names[env])}", fontsize=8)
        upper.tick_params(labelbottom=False, length=0)
        lower.tick_params(length=0)
        for panel in (upper, lower):
            panel.locator_params(axis="x", nbins=4)
        lower.set_xlabel("step")
    rows[0][0].set_ylabel(f"{shortened(dataset)}\naccuracy (%)")
    rows[1][0].set_ylabel("training loss")


def _line(panel: "Axes", by_step: Any, look: Mapping[str, Any]) -> None:
    mean = by_step.mean().dropna()
    if mean.empty:
        return
    panel.plot(mean.index, mean, lw=1.2, ms=2.5, **look)
    if (by_step.count() > 1).any():
        low, high = by_step.min()[mean.index], by_step.max()[mean.index]
        panel.fill_between(mean.index, low, high, color=look["color"], alpha=0.12, lw=0)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("always", "Glyph .* missing from font")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    glyphs = [warning for warning in said if "Glyph" in str(warning.message)]
    for other in (warning for warning in said if warning not in glyphs):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if glyphs:
        log.warning("The fonts of this machine lack characters of some names. The pictures show boxes, the tables all.")
    return buffer.getvalue()
