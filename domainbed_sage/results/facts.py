"""The facts in a record, each checked for its type; anything else is refused, and nothing is converted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from domainbed_sage.core.errors import UserError, shown

LARGEST = 2**63 - 1  # of an integer in the arrays and in the cache
LARGEST_STEP = 2**53  # from here on, float64 does not hold every integer
ROUNDING = 1e-6  # above 1; a weighted mean may exceed it by rounding


def text(where: str, facts: Mapping[str, Any], key: str) -> str:
    """A string; empty if missing or null.

    Args:
        where: file and record, for the message.
        facts: the facts.
        key: name of the fact.

    Raises:
        UserError: it is something else.
    """
    return _text(where, key, facts[key]) if facts.get(key) is not None else ""


def texts(where: str, facts: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of strings; empty if missing or null; arguments as in `text`."""
    values = facts.get(key)
    if values is None:
        return ()
    if not isinstance(values, list):
        raise wrong(where, key, "a list of texts", values)
    return tuple(_text(where, key, value) for value in values)


def mapping(where: str, facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A JSON object; empty if missing or null; arguments as in `text`."""
    value = facts.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise wrong(where, key, "a JSON object", value)
    return value or {}


def integer(where: str, key: str, value: Any) -> int:
    """An integer of 64 bits, which may be written as 3.0.

    Raises:
        UserError: it is something else.
    """
    whole = type(value) is int or (type(value) is float and value.is_integer())
    if not whole or not -LARGEST - 1 <= value <= LARGEST:
        raise wrong(where, key, "an integer of 64 bits", value)
    return int(value)


def count(where: str, facts: Mapping[str, Any], key: str) -> int:
    """A positive integer; 0 if missing or null; arguments as in `text`."""
    if facts.get(key) is None:
        return 0
    value = integer(where, key, facts[key])
    if value < 1:
        raise wrong(where, key, "a positive integer", value)
    return value


def share(where: str, facts: Mapping[str, Any], key: str) -> float:
    """A number in [0, 1]; 0 if missing or null; arguments as in `text`."""
    value = facts.get(key)
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
        raise wrong(where, key, "a number between 0 and 1", value)
    return float(value or 0)


def environments(where: str, values: Any) -> tuple[int, ...]:
    """Indices of held-out environments, ascending.

    Raises:
        UserError: not a list of distinct indices from 0 on.
    """
    if not isinstance(values, list):
        raise wrong(where, "test_envs", "a list of environments' indices", values)
    found = sorted(integer(where, "test_envs", value) for value in values)
    if len(set(found)) < len(found) or any(value < 0 for value in found):
        raise wrong(where, "test_envs", "a list of distinct indices from 0 on", values)
    return tuple(found)


def numbers(file: str, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> npt.NDArray[np.float64]:
    """Values of `keys` in every record, [records, keys]; NaN where a record lacks one, or has null.

    Raises:
        UserError: a value is not a number, or too large for one.
    """
    rows = [[record.get(key) for key in keys] for record in records]
    if not {kind for row in rows for kind in map(type, row)} <= {float, int, type(None)}:
        raise _no_number(file, rows, keys)
    try:
        return np.array(rows, dtype=np.float64)
    except OverflowError:  # an integer of more than 300 digits
        raise _no_number(file, rows, keys) from None


def accuracies(file: str, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> npt.NDArray[np.float64]:
    """As `numbers`, of accuracies.

    Raises:
        UserError: as `numbers`, or a value is not in [0, 1].
    """
    values = numbers(file, records, keys)
    outside = np.argwhere((values < 0) | (values > 1 + ROUNDING))
    if outside.size:
        at, column = map(int, outside[0])
        hint = " It looks like percent: divide it by 100." if 1 < values[at, column] <= 100 else ""
        found = records[at][keys[column]]
        raise wrong(f"{file}, record {at + 1}", keys[column], "an accuracy in [0, 1]", found, hint)
    return values


def wrong(where: str, key: str, expected: str, found: Any, hint: str = "") -> UserError:
    """The error for an invalid fact."""
    return UserError(f"{where}: {key!r} should be {expected}. Found {shown(found)}.{hint}")


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(where, key, "a text", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(where, key, "a text of Unicode characters", value) from None
    return value


def _no_number(file: str, rows: Sequence[Sequence[Any]], keys: Sequence[str]) -> UserError:
    for number, row in enumerate(rows, 1):
        for key, value in zip(keys, row, strict=True):
            if type(value) not in (float, int, type(None)):
                return wrong(f"{file}, record {number}", key, "a number", value)
            if type(value) is int and abs(value) > LARGEST:
                return wrong(f"{file}, record {number}", key, "a number of 64 bits", value)
    raise AssertionError("called only if a value is no number")
