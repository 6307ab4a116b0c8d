"""Standard JSON, which every parser reads: Python's own module writes NaN and the infinities as words."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python


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
