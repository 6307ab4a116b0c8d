"""JSON as its standard has it, which every parser reads: Python's own writes NaN and the infinities as words."""

import json
from typing import Any

from pydantic_core import to_jsonable_python


def dumps(value: Any, **options: Any) -> str:
    """JSON text of a value, which may hold dataclasses and paths; NaN and the infinities become null.

    Args:
        value: what to write.
        options: as of `json.dumps`.
    """
    return json.dumps(to_jsonable_python(value, inf_nan_mode="null"), allow_nan=False, **options)
