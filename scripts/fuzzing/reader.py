"""Something that reads input from outside, and how it is tried."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Reader:
    """Something that reads input from outside.

    Attributes:
        name: what to call it.
        inputs: the examples.
        read: what is to succeed or to raise a `UserError`; the folder is empty before each example. It asserts what
            must not be accepted without a word.
        few: examples in CI.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    few: int = 30


@contextmanager
def silent() -> Iterator[io.StringIO]:
    """Catch what is printed, on both streams."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        yield printed


def repeats(text: str | bytes) -> bool:
    """Whether an object in a JSON text has a name twice; our own look, which no reader uses."""
    found = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        found.append(len(set(names)) < len(names))

    json.loads(text, object_pairs_hook=look)
    return any(found)
