"""Invented and damaged input: every reader of `scripts/fuzz.py` succeeds or says what is wrong; few examples here."""

import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path

import fuzz
import pytest
from fuzzing import flags
from fuzzing.reader import Reader
from hypothesis import Phase, settings
from hypothesis import strategies as st

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import manifest
from domainbed_sage.sweeps.cluster import ledger


@pytest.mark.filterwarnings("default")  # as people see them
@pytest.mark.parametrize("reader", fuzz.READERS, ids=lambda reader: reader.name)
def test_only_messages_for_the_user(reader):
    fuzz.check(reader, examples=reader.few)


@pytest.mark.parametrize(
    ("name", "guard", "instead"),
    [
        ("hparams", "core.strict_json._object", dict),
        ("records", "core.strict_json._object", dict),
        ("records", "results.facts.ROUNDING", 1e9),
        ("plan", "results.planned.MOST_ENVS", 10**9),
        ("plan", "core.strict_json._object", dict),
        ("names", "results.escape.printable", str),
        ("ledger", "sweeps.cluster.ledger._array", lambda facts: ledger.Array(facts["name"], facts["tasks"])),
        ("record cache", "results.record_cache._unpack", lambda table: {"another": table}),
        ("checkpoint", "training.checkpoint._is_sealed", lambda path: True),
        ("recording", "training.verify._wrong_arrays", lambda info, arrays: []),
        ("recording", "training.verify._wrong_types", lambda info: []),
        ("CLASSES.json", "data.classnames._mistakes", lambda pairs, classes: []),
        ("manifest", "data.acquire.manifest._checked", lambda path, size, digest: manifest.Entry(7, digest)),
    ],
)
def test_it_sees_that_a_guard_is_gone(name, guard, instead, monkeypatch):
    reader = next(reader for reader in fuzz.READERS if reader.name == name)
    finds_the_gap(reader, guard, instead, monkeypatch)


def test_it_sees_that_the_bounds_of_numbers_are_gone(monkeypatch):
    """Tried on two commands only: among the lines of all, it takes thousands until one breaks a bound."""
    reader = next(reader for reader in fuzz.READERS if reader.name == "flags")
    reader = dataclasses.replace(reader, inputs=flags.lines([("sweep", "run"), ("sweep", "status")]))
    finds_the_gap(reader, "cli.numbers._within", lambda *bounds: True, monkeypatch)


def finds_the_gap(reader, guard, instead, monkeypatch):
    monkeypatch.setattr(f"domainbed_sage.{guard}", instead)
    monkeypatch.setattr(fuzz, "HASTE", settings(fuzz.HASTE, phases=[Phase.generate], report_multiple_bugs=False))
    with pytest.raises(Exception, match=r"(?s)."):
        fuzz.check(reader, examples=5000)  # it ends at the first finding


def complaint(read, monkeypatch):
    monkeypatch.setattr(fuzz, "HANG_S", 0.5)
    with pytest.raises(AssertionError) as caught:
        fuzz.check(Reader("it", st.just(b"x"), read), examples=3)
    return str(caught.value)


def test_what_it_complains_about(monkeypatch):
    def without_words(*_):
        raise UserError(" ")

    def hides_everything(*_):
        try:
            time.sleep(60)
        except Exception:
            return

    assert complaint(hides_everything, monkeypatch) == "it takes longer than 0.5 s"
    assert complaint(without_words, monkeypatch).startswith("a message without words")
    with pytest.raises(ZeroDivisionError):
        fuzz.check(Reader("it", st.just(b"x"), lambda *_: 1 / 0), examples=3)


HUNGRY = """
import fuzz
from hypothesis import strategies as st

fuzz.MEMORY = 5 * 10**7
try:
    fuzz.check(fuzz.Reader("it", st.just(b"x"), lambda *_: b"x" * 4 * 10**8), examples=3)
except AssertionError as error:
    print(error)
"""


def test_it_complains_of_memory():
    """In a process of its own: in this one, earlier tests may have left holes in the heap that take the bytes in."""
    ended = subprocess.run(
        [sys.executable, "-c", HUNGRY], cwd=Path(fuzz.__file__).parent, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"it takes 0\.[345] GB\n", ended.stdout)


def test_a_message_is_no_complaint():
    def refuse(*_):
        raise UserError("no")

    fuzz.check(Reader("it", st.just(b"x"), refuse), examples=3)


def test_the_command(capsys):
    parsed = fuzz.argparse.Namespace(readers=["bad", "good"], examples=3, seed=0)
    readers = [Reader("bad", st.just(b"x"), lambda *_: 1 / 0), Reader("good", st.just(b"x"), lambda *_: None)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "READERS", readers)
        for module, name in ((fuzz.resource, "setrlimit"), (fuzz.logging, "disable"), (fuzz.warnings, "simplefilter")):
            patch.setattr(module, name, lambda *_: None)
        assert fuzz.main(parsed) == 1
    printed = capsys.readouterr()
    assert re.search(r"^good: 3 examples, \d+ s, no complaint$", printed.out, re.MULTILINE)
    assert "FAILED: bad" in printed.out
    assert "ZeroDivisionError" in printed.err
