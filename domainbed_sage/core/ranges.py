"""Random-search ranges in a sweep file: ``10^U(-4, -2)``, ``2^U(3, 5), whole``, ``U(0, 0.5)`` or a list of values."""

import re
from collections.abc import Mapping
from typing import Any

from domainbed_sage.core.errors import shown
from domainbed_sage.core.hparams import Choice, Power, Search, Uniform

IN_WORDS = "10^U(-4, -2), U(0, 0.5), either of them with ', whole' behind it, or a list of values"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?:({_NUMBER})\^)?U\(({_NUMBER}), *({_NUMBER})\)(, *whole)?")


def read_ranges(texts: Mapping[str, Any]) -> dict[str, Search]:
    """The ranges by name of the hyperparameter.

    Raises:
        ValueError: one is not a range; names all of them, and what is allowed.
    """
    found = {name: read_range(value) for name, value in texts.items()}
    wrong = [f"{name}: {shown(texts[name])}" for name, search in found.items() if search is None]
    if wrong:
        raise ValueError(f"a random-search range should be {IN_WORDS}. Found {', '.join(wrong)}")
    return {name: search for name, search in found.items() if search is not None}


def read_range(value: Any) -> Search | None:
    """One range; None if it is not one."""
    if isinstance(value, list):
        return Choice(*value) if value else None
    match = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    base, low, high = (float(text) if text else None for text in match.group(1, 2, 3))
    if low is None or high is None or low > high or (base is not None and base <= 0):
        return None
    whole = bool(match[4])
    return Uniform(low, high, whole) if base is None else Power(base, low, high, whole)
