"""JSON that every parser reads, and that the package writes no other."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import strictly

import domainbed_sage
from domainbed_sage.core import strict_json

PACKAGE = Path(domainbed_sage.__file__).parent
NOT_WRITTEN = ("config.py", "results/records.py", "results/record_cache.py")  # hashed, compared, or in a binary file
FINITE = {
    "numbers": [0, -1, 10**30, 0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e-06],
    "texts": ["", "θ", '"\\\n', "\udcff"],
    "others": (None, True, False, [], {}, ({},)),
    1: {"b": 1, "a": 2},
}


@dataclass(frozen=True)
class Row:
    path: Path
    value: float


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_becomes_null_at_any_depth(value):
    assert strict_json.dumps(value) == "null"
    assert strictly(strict_json.dumps({"a": [1, (value, {"b": value})]})) == {"a": [1, [None, {"b": None}]]}
    assert strictly(strict_json.dumps([Row(Path("x/y"), value)])) == [{"path": "x/y", "value": None}]


@pytest.mark.parametrize("options", [{}, {"sort_keys": True}, {"indent": 1}, {"ensure_ascii": False}])
def test_what_is_finite_is_written_as_python_does(options):
    value = {str(key): item for key, item in FINITE.items()}
    assert strict_json.dumps(FINITE, **options) == json.dumps(value, **options)


def dumps_in(tree):
    """Line numbers of the calls of `json.dump` and `json.dumps`, however they were imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps") and ast.unparse(node.value) == "json":
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "json":
            yield node.lineno


def test_the_package_writes_json_in_one_way():
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    allowed = ("core/strict_json.py", *NOT_WRITTEN)
    loose = {name: list(dumps_in(ast.parse(path.read_text()))) for name, path in files.items() if name not in allowed}
    assert {name: lines for name, lines in loose.items() if lines} == {}


def test_the_check_sees_another_way():
    tree = ast.parse("import json\njson.dumps(1)\nfrom json import dump\nstrict_json.dumps(1)\njson.loads('1')")
    assert sorted(dumps_in(tree)) == [2, 3]


READ_OTHERWISE = {
    *("core/strict_json.py", "data/classnames.py"),  # itself; names repeated keys among its other mistakes
    "data/emoji.py",  # a published file, which nobody edits
}


def test_the_package_reads_json_in_one_way():
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    assert {name for name, text in files.items() if re.search(r"\bjson\.loads?\(", text)} == READ_OTHERWISE


def test_what_is_read_is_what_python_reads():
    text = '{"a": [1, {"b": NaN}], "c": {"a": 1e400}, "\\u00e9": "x"}'
    assert repr(strict_json.loads(text)) == repr(strict_json.loads(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "has the key 'a' 2 times"),
        ('[{"x": {"b": 1, "a": 1, "a": 2, "a": 3}}]', "has the key 'a' 3 times"),
        ("[" * 100_000, "is nested too deeply to be read"),
        ('{"a":' * 100_000, "is nested too deeply to be read"),
    ],
)
def test_whole_and_yet_refused(text, message):
    with pytest.raises(strict_json.Refused, match=message):
        strict_json.loads(text)


@pytest.mark.parametrize("text", ["", "{", "[1", "9" * 5000, b"\xff"])
def test_no_json(text):
    with pytest.raises(ValueError, match=r".") as caught:
        strict_json.loads(text)
    assert not isinstance(caught.value, strict_json.Refused)
