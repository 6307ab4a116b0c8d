"""Settings from a YAML file: read as YAML 1.2 and strictly, with the line of every value.

Where YAML leaves room for a surprise, the file is refused: equal keys, tags, a second document, any encoding but UTF-8.
Numbers, true, false and null are those of YAML 1.2's core schema; all else is a string: 010 is ten, 1e-6 is a number,
and yes, no, on, off, 1:30 and 2026-01-01 are strings. Importing this module costs no more than ruamel.yaml itself.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, NodeEvent, ScalarEvent, SequenceStartEvent
from ruamel.yaml.reader import ReaderError

from domainbed_sage.core.errors import UserError, raise_all, shown
from domainbed_sage.core.text_file import read_text

LARGEST = 250_000  # bytes; a sweep file has a few thousand, and reading this many takes seconds
DEEPEST = 20  # levels; a sweep file has four
MOST = 100_000  # values, with every alias written out
DIGITS = 300  # of a whole number

Scalar: TypeAlias = bool | int | float | str | None

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{f"{sign}.{name}": float(f"{sign}inf") for sign in ("", "+", "-") for name in ("inf", "Inf", "INF")},
}


@dataclass(frozen=True)
class Node:
    """One value of a file.

    Attributes:
        value: a scalar, a list of nodes, or nodes by key; keys are strings, as written.
        line, column: where it begins, counted from 1; of an entry of a mapping, where its key begins.
        text: a scalar as written, without quotes.
        size: the number of values in it.
    """

    value: "Scalar | list[Node] | dict[str, Node]"
    line: int
    column: int
    text: str = ""
    size: int = 1

    def plain(self) -> Any:
        """The value as plain Python objects, without line numbers."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value

    def as_written(self) -> Any:
        """A number as the string in the file, other values unchanged: for options of other programs."""
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return self.text if number else self.plain()


@dataclass(frozen=True)
class Document:
    """A file of settings.

    Attributes:
        path: of the file.
        entries: its settings by name.
    """

    path: Path
    entries: dict[str, Node]

    def values(self) -> dict[str, Any]:
        """The settings as plain Python objects."""
        return {key: node.plain() for key, node in self.entries.items()}

    def find(self, keys: Sequence[str]) -> Node | None:
        """The node at this path of keys, if there is one."""
        node: Node | None = Node(self.entries, 1, 1)
        for key in keys:
            node = node.value.get(key) if node and isinstance(node.value, dict) else None
        return node


def read(path: Path, what: str, example: str, *, named: Sequence[str] = (), optional: bool = False) -> Document:
    """Read a file of settings.

    Args:
        path: the file.
        what: what it is, for messages: "Sweep file", …
        example: what it should hold, for messages: "`name:`, `datasets:`", …
        named: settings that map names to settings of their own; a list of names is accepted as well.
        optional: treat a file that does not exist as an empty one.

    Raises:
        UserError: it cannot be read, is not YAML, or has equal keys; says where.
    """
    reader = _Reader(read_text(path, what, LARGEST, optional=optional))
    try:
        root = reader.root()
    except _Problem as problem:
        raise UserError(f"{what} {path} cannot be read: {problem}") from None
    if not isinstance(root.value, dict):
        found = shown(root.plain())
        raise UserError(f"{what} {path} should hold settings such as {example}. Found {found} in line {root.line}.")
    entries = {key: reader.by_name(key, node) if key in named else node for key, node in root.value.items()}
    raise_all(reader.mistakes, f"{path}")
    return Document(path, entries)


class _Problem(Exception):  # noqa: N818 - becomes a UserError
    """What is wrong with a file, and where."""

    def __init__(self, text: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {text}")


class _Reader:
    """Turns YAML's events into nodes; `mistakes` collects what a YAML parser would let pass."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.mistakes: list[str] = []
        self.anchors: dict[str, Node] = {}
        self.events = self._parse()

    def root(self) -> Node:
        """The only document; an empty mapping where there is none."""
        root = Node({}, 1, 1)
        started = False
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                if started:
                    raise self._problem(event, "a second document begins here. A file holds one: remove the `---`.")
                started = True
            elif isinstance(event, NodeEvent):
                root = self._node(event, 0)
        return root if root.value is not None else replace(root, value={})

    def _parse(self) -> Iterator[Any]:
        """Yield the parser's events, and raise its errors as `_Problem`."""
        line, column = 1, 1
        try:
            for event in YAML(typ="safe", pure=True).parse(self.text):
                line, column = event.end_mark.line + 1, event.end_mark.column + 1
                yield event
        except ReaderError as error:
            before = self.text[: error.position].split("\n")
            raise _Problem(
                f"the character U+{error.character:04X} has no place in a text file. Is the file UTF-8?",
                *(len(before), len(before[-1]) + 1),
            ) from None
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (line, column)
            raise _Problem(f"this is not YAML: {_explain(error)}", *place) from None
        except Exception as error:  # errors inside the parser itself, such as on an escape beyond Unicode
            raise _Problem(f"what follows is not YAML ({error}).", line, column) from None

    def _problem(self, event: Any, text: str) -> _Problem:
        return _Problem(text, event.start_mark.line + 1, event.start_mark.column + 1)

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, AliasEvent):
            if event.anchor not in self.anchors:
                raise self._problem(event, f"nothing before this is marked with &{event.anchor}.")
            return self.anchors[event.anchor]
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self._problem(event, f"tags such as {shown(tag)} are not read. To make a text, use quotes.")
        if depth > DEEPEST:
            raise self._problem(event, f"this is more than {DEEPEST} levels deep.")
        node = Node(None, event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, ScalarEvent):
            text = self._characters(event)
            node = replace(node, value=self._scalar(event) if event.implicit[0] else text, text=text)
        elif isinstance(event, SequenceStartEvent):
            items = [self._node(item, depth + 1) for item in self._children()]
            node = replace(node, value=items, size=1 + sum(item.size for item in items))
        else:
            entries = self._entries(depth + 1)
            node = replace(node, value=entries, size=1 + sum(entry.size for entry in entries.values()))
        if node.size > MOST:
            raise self._problem(event, f"with its aliases written out this has more than {MOST:,} values.")
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _children(self) -> Iterator[Any]:
        """The events that begin the items of the collection that has just begun."""
        for event in self.events:
            if not isinstance(event, NodeEvent):
                return
            yield event

    def _entries(self, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for event in self._children():
            merge = isinstance(event, ScalarEvent) and event.implicit[0] and event.value == "<<"
            key, value = self._node(event, depth), self._node(next(self.events), depth)
            if isinstance(key.value, list | dict):
                raise self._problem(event, "a key should be a text. Found a list or a mapping.")
            if merge:  # what was merged first wins, and what is in the mapping itself wins over both
                for source in value.value if isinstance(value.value, list) else [value]:
                    if not isinstance(source.value, dict):
                        raise self._problem(event, "`<<:` should be followed by an alias of a mapping.")
                    merged = source.value | merged
            else:
                self._enter(own, key, value)
        return merged | own

    def _enter(self, entries: dict[str, Node], key: Node, value: Node) -> None:
        if key.text in entries:
            self.mistakes.append(
                f"line {key.line}: {shown(key.text)} is repeated here; it is in line {entries[key.text].line} "
                "already. Remove one of the two."
            )
        else:
            entries[key.text] = replace(value, line=key.line, column=key.column)

    def by_name(self, setting: str, node: Node) -> Node:
        """A list of names as a mapping from each name to nothing; anything else as it is."""
        if not isinstance(node.value, list):
            return node
        entries: dict[str, Node] = {}
        for item in node.value:
            if isinstance(item.value, list | dict) or not item.text:
                self.mistakes.append(
                    f"line {item.line}: {setting} should be a list of names, or a mapping from names to settings "
                    f"without dashes. Found {shown(item.plain())} in the list."
                )
            else:
                self._enter(entries, item, replace(item, value=None))
        return replace(node, value=entries)

    def _characters(self, event: ScalarEvent) -> str:
        """The string with surrogate pairs, as JSON writes some characters, joined into those characters."""
        try:
            return event.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self._problem(event, f"{shown(event.value)} has an escape for half of a character.") from None

    def _scalar(self, event: ScalarEvent) -> Scalar:
        text = event.value
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INT.fullmatch(text):
            if len(text) > DIGITS:
                raise self._problem(event, f"this number has {len(text)} digits.")
            return int(text, 10 if text[:2] not in ("0o", "0x") else 0)
        return float(text) if _FLOAT.fullmatch(text) else text


def _explain(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "")
    if "'\\t'" in problem:
        return "a tab. Indent with blanks."
    return f"{problem}{f', {error.context}' if error.problem and error.context else ''}."
