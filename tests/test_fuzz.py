"""Invented and damaged input: every reader of `scripts/fuzz.py` succeeds or says what is wrong; few examples here."""

import re
import time

import fuzz
import pytest
from fuzzing.reader import Reader
from hypothesis import strategies as st

from domainbed_sage.core.errors import UserError


@pytest.mark.filterwarnings("default")  # as people see them
@pytest.mark.parametrize("reader", fuzz.READERS, ids=lambda reader: reader.name)
def test_only_messages_for_the_user(reader):
    fuzz.check(reader, examples=reader.few)


def complaint(read, monkeypatch):
    monkeypatch.setattr(fuzz, "HANG_S", 0.5)
    monkeypatch.setattr(fuzz, "MEMORY", 5 * 10**7)
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
    assert complaint(lambda *_: b"x" * 10**8, monkeypatch) == "it takes 0.1 GB"
    assert complaint(without_words, monkeypatch).startswith("a message without words")
    with pytest.raises(ZeroDivisionError):
        fuzz.check(Reader("it", st.just(b"x"), lambda *_: 1 / 0), examples=3)


def test_a_message_is_no_complaint():
    def refuse(*_):
        raise UserError("no")

    fuzz.check(Reader("it", st.just(b"x"), refuse), examples=3)


def test_the_command(capsys):
    parsed = fuzz.argparse.Namespace(readers=["bad", "good"], examples=3, seed=0)
    readers = [Reader("bad", st.just(b"x"), lambda *_: 1 / 0), Reader("good", st.just(b"x"), lambda *_: None)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "READERS", readers)
        patch.setattr(fuzz.resource, "setrlimit", lambda *_: None)
        assert fuzz.main(parsed) == 1
    printed = capsys.readouterr()
    assert re.search(r"^good: 3 examples, \d+ s, no complaint$", printed.out, re.MULTILINE)
    assert "FAILED: bad" in printed.out
    assert "ZeroDivisionError" in printed.err
