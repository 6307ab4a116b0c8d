"""Numbers on the command line, with their bounds."""

import argparse
import math
from collections.abc import Callable


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A type of argparse: a whole number from `low` to `high`."""
    wanted = f"a whole number ≥ {low}" if high is None else f"a whole number from {low} to {high:,}"

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not _within(number, low, high):
            raise argparse.ArgumentTypeError(f"should be {wanted}. Found {text[:40]!r}.")
        return number

    return read


def _within(number: int, low: int, high: int | None) -> bool:
    return number >= low and (high is None or number <= high)


def positive(text: str) -> float:
    """A type of argparse: a finite number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"should be a number > 0. Found {text[:40]!r}.")
    return number


def share(text: str) -> float:
    """A type of argparse: a number above 0 and up to 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"should be a number > 0 and ≤ 1. Found {text[:40]!r}.")
    return number
