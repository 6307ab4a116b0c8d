"""Damage to files that were whole, and invented pieces of text."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Bytes = st.SearchStrategy[bytes]
PLACES = ("anywhere", "head", "directory", "end", "seal")


@dataclass(frozen=True)
class Damage:
    """What happened to a file: its kind, where (a region of a zip file, and how far into it), and with what."""

    kind: str
    place: str
    at: float
    content: bytes


DAMAGES = st.builds(
    Damage,
    st.sampled_from(["flip", "flip", "flip", "zeros", "overwrite", "cut", "append", "drop", "repeat"]),
    st.sampled_from(PLACES),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=100),
)


def region(content: bytes, place: str) -> tuple[int, int]:
    """First and last byte of a region; places that a file does not have are anywhere in it."""
    directory, end = content.find(b"PK\x01\x02"), content.rfind(b"PK\x05\x06")
    regions = {
        "head": (0, min(200, len(content))),
        "directory": (directory, end),
        "end": (end, len(content)),
        "seal": (content.rfind(b"\nsha256 "), len(content)),
    }
    first, last = regions.get(place, (0, len(content)))
    return (first, last) if 0 <= first < last else (0, len(content))


def damaged(content: bytes, damage: Damage) -> bytes:
    """The content after the damage."""
    if not content:
        return damage.content
    first, last = region(content, damage.place)
    at = first + int(damage.at * (last - first))
    size = len(damage.content)
    if damage.kind == "flip":
        middle, rest = bytes([content[at] ^ (1 << damage.content[0] % 8)]), content[at + 1 :]
    else:
        middle, rest = {
            "zeros": (bytes(len(content[at : at + 40 * size])), content[at + 40 * size :]),
            "overwrite": (damage.content, content[at + size :]),
            "cut": (b"", b""),
            "append": (content[at:] + damage.content, b""),
            "drop": (b"", content[at + size :]),
            "repeat": (content[at : at + size] * 2, content[at + size :]),
        }[damage.kind]
    return content[:at] + middle + rest


# Texts


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DEEP = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"step": ' + b"9" * 4000 + b"}"])
TEXTS = VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50) | DEEP
NUMBERS = st.integers(-3, 3) | st.sampled_from(
    [0.5, 1.0, -0.5, 1.5, 81.2, 10**6, 1e308, float("nan"), 2**63, 2**64, 10**400]
)


def changed(good: dict[str, Any], invented: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[dict[str, Any]]:
    """A JSON object with some of its values replaced, at any depth, and some of its names lost, or new."""
    paths = list(_paths(good))

    def change(edits: list[tuple[tuple[Any, ...], str, Any]]) -> dict[str, Any]:
        made = json.loads(json.dumps(good))
        for (*way, last), kind, value in edits:
            place = made
            for key in way:
                place = place[key] if isinstance(place, dict | list) and _has(place, key) else None
            if isinstance(place, dict):
                place.pop(last, None)
                if kind != "lose":
                    place[last if kind == "replace" else f"{last}x"] = value
            elif isinstance(place, list) and _has(place, last) and kind != "lose":
                place[last] = value
        return made

    edits = st.tuples(
        st.sampled_from(paths), st.sampled_from(["replace", "replace", "replace", "lose", "new"]), invented
    )
    return st.lists(edits, max_size=3).map(change)


def _paths(value: Any, way: tuple[Any, ...] = ()) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inside in items:
        yield (*way, key)
        yield from _paths(inside, (*way, key))


def _at(value: Any, way: Sequence[Any]) -> Any:
    return functools.reduce(lambda place, key: place[key], way, value)


def _has(place: Any, key: Any) -> bool:
    return key in place if isinstance(place, dict) else isinstance(key, int) and key < len(place)


def damaged_text(text: str) -> Bytes:
    """A good file with some of its lines lost, doubled, moved or replaced, and some bytes changed."""
    lines = text.splitlines()
    numbers = st.integers(0, len(lines) - 1)
    line = st.one_of(numbers.map(lines.__getitem__), st.text(max_size=40), fragments())
    edits = st.lists(st.tuples(st.sampled_from(("drop", "insert", "replace")), numbers, line), min_size=1, max_size=4)
    return st.builds(
        _edit, st.just(lines), edits, st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=2)), max_size=2)
    )


def _edit(lines: Sequence[str], edits: Sequence[tuple[str, int, str]], bites: Sequence[tuple[float, bytes]]) -> bytes:
    edited = list(lines)
    for kind, at, line in edits:
        edited[at : at + (kind != "insert")] = [line] if kind != "drop" else []
    content = "\n".join(edited).encode("utf-8", "surrogatepass")
    for share, bite in bites:
        at = int(share * len(content))
        content = content[:at] + bite + content[at + 1 :]
    return content


def fragments() -> st.SearchStrategy[str]:
    """Pieces of YAML in any order."""
    pieces = (
        *("a: ", "b", "- ", "? ", ": ", "[", "]", "{", "}", ", ", "\n", "  ", "\t", "#", "'", '"', "|\n ", ">-\n "),
        *("&a ", "*a", "<<: ", "!!str ", "!x ", "---\n", "...\n", "%YAML 1.1\n", "\\U0011FFFF", "\ufeff", "\x85"),
        *("0", "010", "1e-6", ".inf", "1:30", "yes", "null", "~", "-", "=", "@", "`", "\r", "\x00", "9" * 400),
    )
    return st.lists(st.sampled_from(pieces), max_size=25).map("".join)


def values() -> st.SearchStrategy[Any]:
    """Anything that can stand in JSON, which YAML reads too."""
    simple = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(simple, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names(), inner, max_size=4))


def names() -> st.SearchStrategy[str]:
    """Names that mean something to the suite, and others."""
    known = ("PACS", "EmojiStyles", "ERM", "SAGE", "small_cnn", "algorithm", "model", "lr", "rho", "hparams", "steps")
    return st.sampled_from(known) | st.text(max_size=10)


ODD_NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["a|b", "_x_", "$x$", "50%", "<b>", "\x1b[2J", "a\nb", "\u202eab", "我们", "\\", "`x`", "a" * 300, "é", "a,b", '"']
)
