"""Deviations of our numbers from recorded ones, and what is allowed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Measured:
    """The largest deviation of ours from the recorded numbers of one thing.

    Attributes:
        what: the thing, by its name in the recording.
        deviation: largest relative distance over all cases; infinite if a number of ours is none where theirs is; None
            if nothing was compared.
        tolerance: the largest that is allowed.
        cases: over how many cases it is the largest.
        note: why cases are left out.
    """

    what: str
    deviation: float | None
    tolerance: float
    cases: int
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the deviation is allowed; of no case at all it is not. What is not compared says nothing."""
        return self.deviation is None or (self.cases > 0 and self.deviation <= self.tolerance)


def distance(ours: ArrayLike, recorded: ArrayLike, least: float = 0.0) -> float:
    """Largest difference of two arrays, relative to the largest recorded number.

    Numbers that are NaN have to be so in both; then they do not count.

    Args:
        ours: ours.
        recorded: theirs.
        least: the least number that differences are relative to.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(recorded, dtype=np.float64)
    nothing = np.isnan(b)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), nothing):
        return math.inf
    difference, size = (float(np.abs(x[~nothing]).max(initial=0.0)) for x in (a - b, b))
    return difference / max(size, least) if difference else 0.0


def largest(what: str, distances: Sequence[float], tolerance: float, note: str = "") -> Measured:
    """One row of several cases; NaN, which is never allowed, if one of them is."""
    deviation = float(np.max(distances)) if distances else math.inf
    return Measured(what, deviation, tolerance, len(distances), note)


def not_compared(what: str, why: str) -> Measured:
    """One row of what is in a recording and has no counterpart here."""
    return Measured(what, None, math.inf, 0, why)


def report(rows: Sequence[Measured]) -> tuple[str, bool]:
    """Table of the deviations, and whether all are allowed."""
    columns = "{:<42} {:>5} {:>9} {:>9}  {}"
    lines = [columns.format("recorded", "cases", "largest", "tolerance", "")]
    for row in rows:
        if row.deviation is None:
            lines.append(columns.format(row.what, "-", "-", "-", f"not compared: {row.note}"))
            continue
        verdict = ("ok" if row.ok else "DIFFERS") + (f"; {row.note}" if row.note else "")
        lines.append(columns.format(row.what, row.cases, f"{row.deviation:.1e}", f"{row.tolerance:.0e}", verdict))
    return "\n".join(lines), any(row.cases for row in rows) and all(row.ok for row in rows)
