"""How methods got to their numbers: accuracy of the checkpoint selected so far, source validation, and loss."""

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from domainbed_sage.core.errors import UserError, counted
from domainbed_sage.results import scales
from domainbed_sage.results.looks import Look
from domainbed_sage.results.picture import FAINT, PALE, Block, pages, shortened, strips
from domainbed_sage.results.scales import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MOST = 4  # panels side by side
COLOURED = 8  # methods; of more, the first and the `BEST` best are in colour and the others pale
BEST = 5
BANDS = 3  # methods; of more, the ranges over trials would hide one another
_ROWS = (
    ("selected_so_far", "held-out\naccuracy (%)", 1.15),
    ("source_validation", "source\nvalidation (%)", 0.8),
    ("loss", "training\nloss", 0.6),
)  # measure, name, height in inches


def draw(means: pd.DataFrame, names: Mapping[str, Sequence[str]], looks: Mapping[str, Look]) -> "list[Figure]":
    """One block for each dataset, one column for each held-out environment, one line for each method.

    A line is the mean over trials; where few methods are drawn, the band goes from the lowest to the highest trial.

    Args:
        means: see `progress.means`.
        names: environment names of each dataset.
        looks: of all labels, in the order of the table.

    Raises:
        UserError: there is nothing to draw.
    """
    from matplotlib.lines import Line2D

    if means.empty:
        raise UserError("There are no training curves: no run holds out a single environment.")
    there = [label for label in looks if (means["label"] == label).any()]
    coloured = highlighted(means, there)
    drawn = {label: looks[label] for label in there if label in coloured}
    blocks = []
    for dataset in (name for name in names if (means["dataset"] == name).any()):
        here = means[means["dataset"] == dataset]
        rows = len(list(strips(len(names[dataset]), MOST)))
        height = 0.2 + (0.42 + sum(height for *_, height in _ROWS)) * rows
        blocks.append(Block(height, partial(_dataset, here, dataset, names[dataset], drawn)))
    lines = [
        Line2D([], [], lw=1.2, ms=3, color=look.colour, marker=look.marker, label=shortened(label))
        for label, look in drawn.items()
    ]
    others = [label for label in there if label not in drawn]
    below = _explained(means, drawn, others)
    if others:
        lines.append(Line2D([], [], lw=0.8, color=PALE, label=f"{len(others)} others"))
    return pages(
        blocks, "Held-out accuracy of the checkpoint that training-domain validation selects so far", below, lines
    )


def highlighted(means: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """Which of many methods are in colour: the first row, and the best at the end of their curves.

    The best are those with the highest mean over datasets of the mean over environments, among those that have every
    curve which any of them has.
    """
    if len(labels) <= COLOURED:
        return list(labels)
    ends = means.groupby(["label", "dataset", "env"])["selected_so_far"].last().unstack(["dataset", "env"])
    averages = ends.dropna().T.groupby("dataset").mean().mean()
    best = averages.reindex(list(labels)).sort_values(ascending=False, kind="stable").dropna().index[:BEST]
    return [label for label in labels if label == labels[0] or label in best]


def _explained(means: pd.DataFrame, drawn: Mapping[str, Look], others: Sequence[str]) -> str:
    most = int(means["trials"].max())
    lines = [f"mean over {most} trials" if most > 1 else "one trial"]
    lines[0] += "; bands: lowest to highest trial" * (most > 1 and len(drawn) + len(others) <= BANDS)
    fewer = means[means["trials"] < means.groupby("dataset")["trials"].transform("max")]
    cells = fewer[["label", "dataset", "environment"]].drop_duplicates().itertuples(index=False)
    if few := [f"{shortened(label)} on {shortened(dataset)}, {shortened(name)}" for label, dataset, name in cells]:
        lines.append(f"fewer trials than others: {'; '.join(few[:4])}{f'; and {len(few) - 4} more' * (len(few) > 4)}")
    cut = [loss_scale(rows, drawn) for _, rows in means.groupby(["dataset", "env"])]
    off = {label for scale in cut if scale is not None for label in scale.leaving}
    if leaving := [shortened(label) for label in (*drawn, *others) if label in off]:
        lines.append(f"beyond a panel's scale of losses, which suits the curves in colour: {', '.join(leaving)}")
    if others:
        lines.append(
            f"in colour: the first row and the {BEST} best averages; pale: {', '.join(map(shortened, others))}"
        )
    return "\n".join(line for text in lines for line in textwrap.wrap(text, 130))


def _dataset(
    means: pd.DataFrame, dataset: str, names: Sequence[str], looks: Mapping[str, Look], part: "SubFigure"
) -> None:
    shares = list(strips(len(names), MOST))
    heights = [height for *_, height in _ROWS] * len(shares)
    panels = part.subplots(len(heights), max(map(len, shares)), squeeze=False, sharex=True, height_ratios=heights)
    part.suptitle(shortened(dataset), x=0.01, ha="left", fontweight="bold", fontsize=7.5)
    for at, share in enumerate(shares):
        rows = panels[3 * at : 3 * at + 3]
        for column, env in enumerate(share):
            here = means[means["env"] == env]
            for panel, (measure, *_) in zip(rows[:, column], _ROWS, strict=True):
                _lines(panel, here, measure, looks)
            if (scale := loss_scale(here, looks)) is not None:
                _cut(rows[2, column], scale)
            rows[0, column].set_title(f"held out: {shortened(names[env])}", fontsize=6.5, pad=3)
            rows[2, column].set_xlabel("step", fontsize=6)
        for panel in rows[:, len(share) :].flat:
            panel.set_axis_off()
        for panel, (_, name, _) in zip(rows[:, 0], _ROWS, strict=True):
            panel.set_ylabel(name, fontsize=6)


def loss_scale(means: pd.DataFrame, looks: Mapping[str, Look]) -> Scale | None:
    """The scale of a panel of losses where curves leave it: one that diverges would flatten all others.

    Args:
        means: of one environment of a dataset.
        looks: of the methods in colour, whose curves decide.
    """
    losses = {str(label): own.to_numpy(np.float64) for label, own in means.groupby("label", sort=False)["loss"]}
    return scales.of_curves(losses, {label: own for label, own in losses.items() if label in looks})


def _cut(panel: "Axes", scale: Scale) -> None:
    """Give a panel its scale, and say how many curves leave it and where."""
    panel.set_ylim(scale.low, scale.high)
    text = f"{counted(len(scale.leaving), 'curve')} beyond {'↑' * bool(scale.above)}{'↓' * bool(scale.below)}"
    how: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 5.5, "color": FAINT}
    panel.text(0.99, 0.98, text, transform=panel.transAxes, **how).set_in_layout(False)


def _lines(panel: "Axes", means: pd.DataFrame, measure: str, looks: Mapping[str, Look]) -> None:
    from matplotlib.ticker import MaxNLocator

    scale = 1 if measure == "loss" else 100
    for label, rows in means.groupby("label", sort=False):
        look = looks.get(str(label))
        line = rows[["step", measure, f"{measure}_low", f"{measure}_high"]].dropna()
        steps, values = line["step"], scale * line[measure]
        how: dict[str, Any] = {"color": PALE, "lw": 0.6, "zorder": 1.5}
        if look is not None:
            marked = list(range(len(line) - 1, -1, -max(1, len(line) // 4)))  # the last one, and few others
            how = {"color": look.colour, "lw": 1.1, "marker": look.marker, "ms": 2.8, "markevery": marked}
        if line.empty:
            continue
        panel.plot(steps, values, ls="--" if measure == "source_validation" else "-", **how)
        if look is not None and means["label"].nunique() <= BANDS and (rows["trials"] > 1).any():
            low, high = (scale * line[f"{measure}_{end}"] for end in ("low", "high"))
            panel.fill_between(steps, low, high, color=look.colour, alpha=0.12, lw=0)
    panel.xaxis.set_major_locator(MaxNLocator(3))
    panel.yaxis.set_major_locator(MaxNLocator(4))
