"""How numbers are printed on the page."""

import math
from collections.abc import Callable, Mapping
from typing import Any

NONE = "–"
LEVELS = 4  # shades of the heat table on either side


def known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def num(value: float | None, digits: int = 2) -> str:
    """A number with so many digits after the point."""
    return f"{value:z.{digits}f}".replace("-", "−") if value is not None and known(value) else NONE


def digits(value: float | None, number: int = 3) -> str:
    """A number with so many digits in all, without powers of ten."""
    if value is None or not known(value):
        return NONE
    places = max(0, number - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return num(value, places)


def signed(value: float | None, places: int = 2) -> str:
    """A difference, always with its sign."""
    return f"{value:+z.{places}f}".replace("-", "−") if value is not None and known(value) else NONE


def whole(value: float | None) -> str:
    """A count."""
    return NONE if value is None else f"{value:d}"


def p(value: float) -> str:
    """A p-value."""
    return NONE if not known(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(row: Mapping[str, float], question: str) -> str:
    """The interval of a question, e.g. ``+1.14 to +1.47``."""
    return span({end: row[f"{question}_{end}"] for end in ("low", "high")})


def span(row: Mapping[str, float]) -> str:
    """An interval, from `low` to `high`."""
    return f"{signed(row['low'])} to {signed(row['high'])}" if known(row["low"]) else NONE


def shade(value: float, full: float) -> str:
    """The class of a cell of the heat table: ``u`` or ``d`` for up or down, and how far of `full`; empty at 0."""
    if not known(value) or value == 0:
        return ""
    return f"{'u' if value > 0 else 'd'}{max(1, math.ceil(LEVELS * min(1.0, abs(value) / full)))}"


def settings(values: Mapping[str, Any]) -> str:
    """Hyperparameters in one line, e.g. ``lr 1e-06, rho 0.05``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


FILTERS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function for function in (known, num, digits, signed, whole, p, interval, span, shade, settings)
}
