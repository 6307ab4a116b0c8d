"""How far chance can move a mean: standard errors over trials or over datasets, and Student's t for either."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from domainbed_sage.results.records import FloatArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """What the ± of a table stands for.

    Attributes:
        title: for captions.
        short: what a number over one trial does not have.
        column: its name in CSV files.
        explanation: a sentence for the footer; empty where the caption says it all.
    """

    title: str
    short: str
    column: str
    explanation: str = ""


STANDARD_ERROR = Spread("standard error", "standard error", "stderr")
HALF_WIDTH = Spread(
    f"half-width of the {CONFIDENCE:.0%} confidence interval",
    "confidence interval",
    "half_width_95",
    f"± is the half-width of a {CONFIDENCE:.0%} confidence interval for other seeds and splits on these datasets "
    "(Student's t over the trials), each number by itself. Averages over environments are taken within each trial "
    "first; the average over datasets combines their standard errors. To compare two rows, use `domainbed-sage "
    "compare`, which pairs them.",
)


class Error(NamedTuple):
    """The standard error of a mean, and its degrees of freedom; arrays where several means are tested at once."""

    se: FloatArray
    df: FloatArray


class TTest(NamedTuple):
    """A two-sided t-test of a mean against 0, with its confidence interval; NaN if there is none."""

    se: float = math.nan
    df: float = math.nan
    t: float = math.nan
    p: float = math.nan
    low: float = math.nan
    high: float = math.nan


def error_of_these(values: npt.ArrayLike) -> Error:
    """The error of the mean over n fixed groups of the mean over their trials; other trials could have been drawn.

    se = sqrt(Σ_g var_g / T_g) / n, var_g of group g over its T_g trials with ddof 1, and df = Σ_g (T_g − 1). NaN where
    a group has fewer than two trials.

    Args:
        values: [..., n, T]; NaN where a trial is missing.
    """
    x = np.asarray(values, np.float64)
    trials = np.isfinite(x).sum(axis=-1)  # [..., n]
    degrees = np.where((trials > 1).all(axis=-1, keepdims=True), trials - 1.0, np.nan)
    mean = np.nansum(x, axis=-1, keepdims=True) / np.maximum(trials, 1)[..., None]
    variance = np.nansum((x - mean) ** 2, axis=-1) / degrees
    return Error(np.sqrt((variance / trials.clip(1)).sum(axis=-1)) / x.shape[-2], degrees.sum(axis=-1))


def error_of_like_these(values: npt.ArrayLike) -> Error:
    """The error of the mean of n groups, [..., n], that are a sample of all groups: deviation / sqrt(n), df = n − 1."""
    x = np.asarray(values, np.float64)
    n = x.shape[-1]
    return Error(x.std(axis=-1, ddof=1) / math.sqrt(n), np.full(x.shape[:-1], n - 1.0))


def p_value(mean: npt.ArrayLike, error: Error) -> FloatArray:
    """Two-sided p-value of a mean against 0 by Student's t; the standard error must not be 0."""
    from scipy import special  # as scipy.stats calls it, without the time to import that

    return np.asarray(2 * special.stdtr(error.df, -np.abs(np.asarray(mean) / error.se)), np.float64)


def half_width(error: Error) -> FloatArray:
    """Half-width of the confidence interval by Student's t."""
    from scipy import special

    return np.asarray(special.stdtrit(error.df, (1 + CONFIDENCE) / 2) * error.se, np.float64)


def t_test(mean: float, error: Error) -> TTest:
    """The test of one mean."""
    se, df, half = float(error.se), float(error.df), float(half_width(error))
    return TTest(se, df, mean / se, float(p_value(mean, error)), mean - half, mean + half)


def half_width_of(groups: Sequence[Sequence[float]]) -> float:
    """Half-width for the mean over fixed groups, given by the values of their trials; NaN if one has fewer than two."""
    if min(map(len, groups), default=0) < 2:
        return math.nan
    values = np.full((len(groups), max(map(len, groups))), np.nan)
    for row, group in zip(values, groups, strict=True):
        row[: len(group)] = group
    return float(half_width(error_of_these(values)))
