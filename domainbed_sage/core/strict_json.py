"""JSON that every parser understands alike: Python's own writes NaN as a word, and of two equal keys takes the last."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from domainbed_sage.core.errors import shown


class RepeatedKey(ValueError):  # noqa: N818 - reads as what it is
    """An object has the same key twice."""


def loads(text: str | bytes) -> Any:
    """The value of a JSON text; NaN and the infinities are read, as earlier versions and DomainBed write them.

    Raises:
        RepeatedKey: an object has the same key twice.
        ValueError: the text is not JSON.
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise RepeatedKey(f"{shown(repeated)} stands there twice")
    return made


def dumps(value: Any, **options: Any) -> str:
    """JSON text of a value, which may hold dataclasses and paths; NaN and the infinities become null.

    Args:
        value: what to write.
        options: as of `json.dumps`.
    """
    return json.dumps(_plain(value), allow_nan=False, **options)


def _plain(value: Any) -> Any:
    """The value in JSON's own types; texts stay as they are, also file names that are not Unicode."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else _key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value, inf_nan_mode="null")


def _key(key: Any) -> Any:
    return next(iter(to_jsonable_python({key: 0}, inf_nan_mode="null")))
