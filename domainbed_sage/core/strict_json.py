"""JSON as its standard has it, which every parser reads: Python's own writes NaN and the infinities as words.

What is read is read strictly: of two values of one key, Python's own would drop the first without a word. NaN and the
infinities are read, because files of earlier versions, and DomainBed's, have them.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python

from domainbed_sage.core.errors import shown


class Refused(ValueError):  # noqa: N818 - reads as what it is
    """JSON that is whole, and yet not read: an object has a key twice, or it is nested too deeply."""


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, or holds an integer of more than 4,300 digits.
        Refused: an object has a key twice, or it is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise Refused("is nested too deeply to be read") from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        name, times = Counter(name for name, _ in pairs).most_common(1)[0]
        raise Refused(f"has the key {shown(name)} {times} times; it should be there once")
    return made


def dumps(value: Any, **options: Any) -> str:
    """JSON text of a value, which may hold dataclasses and paths; NaN and the infinities become null.

    Args:
        value: what to write.
        options: those of `json.dumps`.
    """
    return json.dumps(_plain(value), allow_nan=False, **options)


def _plain(value: Any) -> Any:
    """The value in JSON's own types; strings are unchanged, including file names that are not Unicode."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else _key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value, inf_nan_mode="null")


def _key(key: Any) -> Any:
    return next(iter(to_jsonable_python({key: 0}, inf_nan_mode="null")))
