"""The scale of a panel in which some curves may diverge: it shows the others, and says which curves leave it."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from domainbed_sage.results.records import FloatArray

FAR = 3.0  # beyond what most curves reach, in sizes of a curve
MARGIN = 0.05  # of the scale, above and below, as matplotlib leaves


@dataclass(frozen=True)
class Scale:
    """The limits of an axis, and the curves that go above or below them; empty if all are within."""

    low: float
    high: float
    above: tuple[str, ...]
    below: tuple[str, ...]

    @property
    def leaving(self) -> tuple[str, ...]:
        """The curves that are not shown as a whole."""
        return tuple(dict.fromkeys(self.above + self.below))


def of_curves(curves: Mapping[str, FloatArray], leading: Mapping[str, FloatArray]) -> Scale | None:
    """A scale for what is near to most of the leading curves; None if that is everything.

    Near is what lies at most `FAR` times the size of a curve above its maximum or below its minimum, each the median
    over the leading curves; size is the largest absolute value. The scale ends at the outermost values of the curves
    that are near as a whole; there is one at least.

    Args:
        curves: values of every curve, NaN where it has none.
        leading: those of them that decide.
    """
    finite = [values for own in leading.values() if (values := own[np.isfinite(own)]).size]
    if not finite:
        return None
    low, high, size = (median_low(map(of, finite)) for of in (np.min, np.max, lambda own: np.abs(own).max()))
    floor, ceiling = low - FAR * size, high + FAR * size
    above = tuple(name for name, own in curves.items() if (own > ceiling).any())
    below = tuple(name for name, own in curves.items() if (own < floor).any())
    if not above and not below:
        return None
    within = np.concatenate([own for name, own in curves.items() if name not in above + below])
    least, most = float(np.nanmin(within)), float(np.nanmax(within))
    margin = MARGIN * (most - least or size or 1.0)
    return Scale(least - margin, most + margin, above, below)
