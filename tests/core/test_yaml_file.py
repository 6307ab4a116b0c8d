"""Files of settings: what YAML 1.2 makes of every value, and one message with line and column for whatever is wrong."""

import math
import os
import pickle
import subprocess
import sys

import pytest

from domainbed_sage.core import yaml_file
from domainbed_sage.core.errors import Mistake, UserError, near, shown
from domainbed_sage.core.text_file import read_text


def read(tmp_path, content, **options):
    path = tmp_path / "s.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return yaml_file.read(path, "Sweep file", "`name:`", **options)


def message(tmp_path, content, **options):
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, **options)
    return str(caught.value).replace(str(tmp_path / "s.yaml"), "FILE")


# What values mean


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("10", 10), ("-7", -7), ("+3", 3), ("0", 0), ("0o10", 8), ("0x1F", 31)],
        *[("010", 10), ("0123", 123), ("-010", -10)],  # YAML 1.1: 8, 83, -8
        *[("1e-6", 1e-6), ("1E-6", 1e-6), ("1.e-3", 1e-3), (".5", 0.5), ("5.", 5.0), ("-7e-3", -7e-3), ("1e5", 1e5)],
        *[("1e999", math.inf), ("-.inf", -math.inf), (".INF", math.inf)],
        *[("true", True), ("False", False), ("TRUE", True)],
        *[("null", None), ("~", None), ("Null", None), ("", None)],
        *[(word, word) for word in ("yes", "no", "on", "off", "y", "N", "tRUE", "none", "nan")],
        *[(word, word) for word in ("1:30", "4:00:00", "1:30.5", "1_000", "0b11", "+", ".", "1e", "e5", "0o9")],
        *[("2026-01-01", "2026-01-01"), ("x1e-6", "x1e-6"), ("=", "="), ("-0x10", "-0x10")],
        *[
            ('"\\ud83d\\ude00"', "\U0001f600"),
            ("'010'", "010"),
            ('"1e-6"', "1e-6"),
            ("'true'", "true"),
            ("''", ""),
            ('"\\u00e9"', "é"),
        ],
    ],
)
def test_scalars(tmp_path, text, value):
    found = read(tmp_path, f"a: {text}\n").values()["a"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number(tmp_path):
    assert math.isnan(read(tmp_path, "a: .nan").values()["a"])


def test_a_number_as_it_is_written(tmp_path):
    document = read(tmp_path, "{a: 0123, b: 1e3, c: true, d: x, e: '5', f: [1]}")
    written = {key: node.as_written() for key, node in document.entries.items()}
    assert written == {"a": "0123", "b": "1e3", "c": True, "d": "x", "e": "5", "f": [1]}


def test_keys_are_texts_as_they_are_written(tmp_path):
    text = "1: a\n01: b\ntrue: c\nno: d\n~: e\n'x y': f\n? g\n: h\n"
    assert list(read(tmp_path, text).values()) == ["1", "01", "true", "no", "~", "x y", "g"]


def test_places(tmp_path):
    document = read(tmp_path, "# comment\na: 1\nb:\n\n  c:\n    - x\n  'd':  {e: 2}\r\nf: [g,\n h]\n", named=["f"])
    places = {("a",): (2, 1), ("b",): (3, 1), ("b", "c"): (5, 3), ("b", "d"): (7, 3), ("b", "d", "e"): (7, 10)}
    places |= {("f",): (8, 1), ("f", "g"): (8, 5), ("f", "h"): (9, 2)}
    assert {keys: (document.find(keys).line, document.find(keys).column) for keys in places} == places
    assert document.find(["b", "z"]) is None
    assert document.find(["a", "z"]) is None


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "null", "{}", b"\xef\xbb\xbf"])
def test_nothing_in_it(tmp_path, content):
    assert read(tmp_path, content).values() == {}


def test_aliases_and_merge_keys(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {y: 4, <<: [{x: 9, y: 5, z: 5}, *a]}\ne: {'<<': 6}\n"
    found = read(tmp_path, text)
    assert found.values() == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 9, "y": 4, "z": 5},
        "e": {"<<": 6},
    }
    assert found.find(["c", "x"]).line == 1
    assert found.find(["b"]).line == 2


def test_encodings(tmp_path):
    expected = {"a": "Bild für 我"}
    assert read(tmp_path, "\ufeffa: Bild für 我\n").values() == expected
    program = (
        "import sys; from pathlib import Path; from domainbed_sage.core import yaml_file\n"
        "print(ascii(yaml_file.read(Path(sys.argv[1]), 'x', 'y').values()))"
    )
    environ = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", program, str(tmp_path / "s.yaml")]
    assert subprocess.check_output(command, env=environ, text=True, timeout=120).strip() == ascii(expected)


def test_a_byte_order_mark_is_no_character(tmp_path):
    (tmp_path / "s.txt").write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfa")
    assert read_text(tmp_path / "s.txt", "File", 10) == "\ufeffa"


def test_a_list_of_names_is_a_mapping(tmp_path):
    text = "names: [PACS, 2024, 010]\nothers: [PACS, PACS]\n"
    assert read(tmp_path, text, named=["names"]).values() == {
        "names": {"PACS": None, "2024": None, "010": None},
        "others": ["PACS", "PACS"],
    }
    assert read(tmp_path, "names: {A: {b: 1}}", named=["names"]).values() == {"names": {"A": {"b": 1}}}
    assert read(tmp_path, "names: A", named=["names"]).values() == {"names": "A"}


# Mistakes


def test_every_repeated_key_is_named_with_both_lines(tmp_path):
    text = "steps: 3\nalgorithms:\n  SAGE: {}\n  ERM: {lr: 1, lr: 2}\n  'SAGE': {}\nsteps: 3\ndatasets: [A,\n B, A]\n"
    assert message(tmp_path, text, named=["datasets"]).splitlines() == [
        "4 mistakes in FILE:",
        "  - line 4: 'lr' is repeated here; it is in line 4 already. Remove one of the two.",
        "  - line 5: 'SAGE' is repeated here; it is in line 3 already. Remove one of the two.",
        "  - line 6: 'steps' is repeated here; it is in line 1 already. Remove one of the two.",
        "  - line 8: 'A' is repeated here; it is in line 7 already. Remove one of the two.",
    ]


def test_list_of_mappings(tmp_path):
    found = message(tmp_path, "names:\n - A\n - B: {c: 1}\n - \n - [D]\n", named=["names"])
    assert [line.partition(": ")[0] for line in found.splitlines()[1:]] == ["  - line 3", "  - line 4", "  - line 5"]
    assert "names should be a list of names, or a mapping from names to settings without dashes. Found {'B'" in found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a:\n\tb: 1", "line 2, column 1: this is not YAML: a tab. Indent with blanks."),
        ("a: [", "line 1, column 5: this is not YAML: expected the node content"),
        ("a: '", "line 1, column 5: this is not YAML: found unexpected end of stream"),
        ("a: b: c", "line 1, column 5: this is not YAML: mapping values are not allowed here."),
        ("a: 1\nb: @x", "line 2, column 4: this is not YAML: found character '@'"),
        ('a: 1\nb: "\\UFFFFFFFF"', "line 2, column 2: what follows is not YAML"),
        ("b: 1\nä: \x00", "line 2, column 4: the character U+0000 has no place in a text file."),
        ("a: \x1b[2J", "line 1, column 4: the character U+001B has no place"),
        ("b: 1\n---\nc: 2", "line 2, column 1: a second document begins here."),
        ("b: 1\n...\nc: 2", "line 3, column 1: a second document begins here."),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "line 2, column 4: tags such as '!!python/object/apply:os"),
        ("a: !!str 012", "line 1, column 4: tags such as '!!str' are not read."),
        ("!x\na: 1", "line 1, column 1: tags such as '!x' are not read."),
        ("a: ! 012", "line 1, column 4: tags such as '!' are not read."),
        ('a: 1\nb: "\\ud83d"', "line 2, column 4: '\\ud83d' has an escape for half of a character."),
        ("a: 1\nb: *no", "line 2, column 4: nothing before this is marked with &no."),
        ("a: &a [*a]", "line 1, column 8: nothing before this is marked with &a."),
        ("a: {<<: 3}", "line 1, column 5: `<<:` should be followed by an alias of a mapping."),
        ("? [a, b]\n: c", "line 1, column 3: a key should be a text."),
        ("{{a: b}: c}", "line 1, column 2: a key should be a text."),
        ("a: " + "9" * 301, "line 1, column 4: this number has 301 digits."),
        ("a: " + "[" * 20_000, "line 1, column 24: this is more than 20 levels deep."),
        ("a: 1\n" + "# comment\n" * 25_000, "it is larger than 250,000 bytes."),
        ("a: 1".encode("utf-16"), "it is UTF-16, as PowerShell's `>` writes it. Save it as UTF-8."),
        ("a: 1".encode("utf-16-le"), "line 1, column 2: the character U+0000 has no place"),
        ("a: é\nb: Größe".encode("latin-1"), "line 1, column 4: byte 0xe9 is not UTF-8."),
        ("a: é\nb: ä".encode() + b"\xf6", "line 2, column 5: byte 0xf6 is not UTF-8."),
    ],
)
def test_what_cannot_be_read(tmp_path, content, words):
    assert message(tmp_path, content).startswith(f"Sweep file FILE cannot be read: {words}")


def test_billion_laughs(tmp_path):
    """Ten thousand million values in 300 characters; a few thousand are nothing to complain about."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert len(read(tmp_path, "\n".join(["l0: &l0 x", *levels[:3]])).values()["l3"]) == 10
    found = message(tmp_path, "\n".join(["l0: &l0 x", *levels]))
    assert "line 6, column 5: with its aliases written out this has more than 100,000 values." in found


@pytest.mark.parametrize(("text", "found"), [("just text", "'just text' in line 1"), ("\n[1, 2]", "[1, 2] in line 2")])
def test_no_settings(tmp_path, text, found):
    assert message(tmp_path, text) == f"Sweep file FILE should hold settings such as `name:`. Found {found}."


def test_no_file(tmp_path):
    def complaint(path, **options):
        with pytest.raises(UserError) as caught:
            yaml_file.read(path, "Site file", "`x:`", **options)
        return str(caught.value)

    none, pipe, loop = tmp_path / "none.yaml", tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    assert complaint(none) == f"Site file {none} does not exist."
    assert yaml_file.read(none, "Site file", "`x:`", optional=True).values() == {}
    assert complaint(tmp_path, optional=True) == f"Site file {tmp_path} cannot be read: it is a folder."
    assert complaint(pipe) == f"Site file {pipe} cannot be read: it is neither a file nor a link to one."
    assert complaint(loop).startswith(f"Site file {loop} ")
    assert complaint(tmp_path / ("a" * 300)).endswith("cannot be read: File name too long.")


def test_unreadable_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "s.yaml"
    path.write_text("a: 1")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(UserError, match=r"Sweep file .* cannot be read: Permission denied\."):
        yaml_file.read(path, "Sweep file", "`name:`")


def test_it_is_light():
    """Reading a file loads nothing that takes long to import."""
    program = "import sys, domainbed_sage.sweeps.name; print(*(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True, timeout=120).split()
    assert not {"torch", "numpy", "pandas", "pydantic", "matplotlib", "yaml"} & set(loaded)


# Words of messages


def test_near():
    assert near("sge", ["ERM", "SAGE", "Sage"]) == " Did you mean 'SAGE'?"
    assert near("xyz", ["ERM", "SAGE"]) == ""


def test_shown():
    assert shown("x\x1b[2J") == r"'x\x1b[2J'"
    assert shown("a" * 98) == repr("a" * 98)
    assert shown("a" * 99) == "'" + "a" * 99 + "… (101 characters)"


def test_a_mistake_survives_the_way_between_processes():
    mistake = pickle.loads(pickle.dumps(UserError("m", [Mistake("text", "lr")]))).mistakes[0]
    assert (mistake, mistake.about) == ("text", "lr")
