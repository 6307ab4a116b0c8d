"""Small pictures inside table rows, as SVG. Places are shares of the width, so that text keeps its size on a phone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

HEIGHT = 30  # pixels of a row
NOTHING = (math.nan, math.nan)
_MARGIN = 0.06  # of the range, on either side


@dataclass(frozen=True)
class Axis:
    """A horizontal axis: its range, and where its ticks are."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> str:
        """The place of a value, e.g. ``37.5%``."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"


def axis(values: Iterable[float], around: float = math.nan, most: int = 8) -> Axis:
    """An axis that shows all values, and one more where that is given; values that are NaN do not count.

    Args:
        values: what it shows.
        around: the further value.
        most: ticks that it has at most.
    """
    there = [value for value in (*values, around) if not math.isnan(value)] or [0.0]
    low, high = min(there), max(there)
    width = (high - low) or 1.0
    low, high = low - _MARGIN * width, high + _MARGIN * width
    return Axis(low, high, ticks(low, high, most))


def ticks(low: float, high: float, most: int = 8) -> tuple[float, ...]:
    """Round numbers within a range: multiples of 1, 2 or 5 times a power of ten; at most so many."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return tuple(round(step * at, 10) for at in range(first, last + 1))
    raise AssertionError("a step of twenty times the smallest always suffices")


def head(own: Axis, unit: str) -> Markup:
    """The tick labels, above the rows."""
    marks = "".join(
        f'<text x="{own.at(tick)}" y="14" text-anchor="middle">{_label(tick)}</text>'
        for tick in own.ticks
        if 0.03 < (tick - own.low) / (own.high - own.low) < 0.97
    )
    return Markup('<svg class="plot" height="18" role="img" aria-label="{}">{}</svg>').format(unit, Markup(marks))


def interval(
    own: Axis,
    mean: float,
    thick: Sequence[float] = NOTHING,
    thin: Sequence[float] = NOTHING,
    zero: float | None = 0.0,
    dotted: Sequence[float] = NOTHING,
) -> Markup:
    """A dot with a thick and a thin bar, and a dotted one below; what is NaN is not drawn.

    Args:
        own: the axis.
        mean: where the dot is.
        thick: low and high end of the thick bar.
        thin: the same of the thin one.
        zero: where a vertical line marks no difference; None: nowhere.
        dotted: low and high end of the dotted bar.
    """
    middle = HEIGHT / 2
    parts = [f'<line class="grid" x1="{own.at(t)}" x2="{own.at(t)}" y1="0" y2="{HEIGHT}"/>' for t in own.ticks]
    if zero is not None and own.low < zero < own.high:
        parts.append(f'<line class="zero" x1="{own.at(zero)}" x2="{own.at(zero)}" y1="0" y2="{HEIGHT}"/>')
    for name, ends, y in (("thin", thin, middle), ("thick", thick, middle), ("dotted", dotted, HEIGHT - 5)):
        if not np.isnan(ends).any():
            places = f'x1="{own.at(ends[0])}" x2="{own.at(ends[1])}"'
            parts.append(f'<line class="{name}" {places} y1="{y}" y2="{y}"/>')
    if not math.isnan(mean):
        parts.append(f'<circle class="dot" cx="{own.at(mean)}" cy="{middle}" r="2.5"/>')
    return Markup(f'<svg class="plot" height="{HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>')


def _label(tick: float) -> str:
    return f"{tick:g}".replace("-", "−")
