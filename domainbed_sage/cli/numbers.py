"""Numbers on the command line, each within the bounds of what it means."""

import argparse
import math
from collections.abc import Callable

LARGEST = 2**63 - 1


def whole(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """Reads a whole number from `least` to `most`; argparse shows the message of what is refused."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise refused(text) from None
        if not least <= number <= most:
            raise refused(text)
        return number

    def refused(text: str) -> argparse.ArgumentTypeError:
        bounds = f"from {least:,} to {most:,}" if most < LARGEST else f"of 64 bits, at least {least}"
        return argparse.ArgumentTypeError(f"it should be a whole number {bounds}. Found {text[:60]!r}.")

    return read


def seconds(text: str) -> float:
    """Reads a time in seconds, above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"it should be a number of seconds above 0. Found {text[:60]!r}.")
    return number
