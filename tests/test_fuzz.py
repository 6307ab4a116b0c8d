"""Invented and damaged input: every reader of `scripts/fuzz.py` succeeds or says what is wrong; few examples here."""

import sys
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st

from domainbed_sage.core.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import fuzz


@pytest.mark.parametrize("reader", fuzz.READERS, ids=lambda reader: reader.name)
def test_only_messages_for_the_user(reader):
    fuzz.check(reader, examples=200)


def complaint(read, monkeypatch):
    monkeypatch.setattr(fuzz, "HANG_S", 0.5)
    monkeypatch.setattr(fuzz, "MEMORY", 10**7)
    with pytest.raises(AssertionError) as caught:
        fuzz.check(fuzz.Reader("it", st.just(b"x"), read), examples=3)
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
    assert complaint(lambda *_: bytes(2 * 10**7), monkeypatch) == "it takes 0.0 GB"
    assert complaint(without_words, monkeypatch).startswith("a message without words")
    with pytest.raises(ZeroDivisionError):
        fuzz.check(fuzz.Reader("it", st.just(b"x"), lambda *_: 1 / 0), examples=3)


def test_a_message_is_no_complaint():
    def refuse(*_):
        raise UserError("no")

    fuzz.check(fuzz.Reader("it", st.just(b"x"), refuse), examples=3)


def test_the_command(capsys):
    parsed = fuzz.argparse.Namespace(readers=["bad", "good"], examples=3, seed=0)
    readers = [fuzz.Reader("bad", st.just(b"x"), lambda *_: 1 / 0), fuzz.Reader("good", st.just(b"x"), lambda *_: None)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "READERS", readers)
        patch.setattr(fuzz.resource, "setrlimit", lambda *_: None)
        assert fuzz.main(parsed) == 1
    printed = capsys.readouterr()
    assert "good: 3 examples, no complaint" in printed.out
    assert "FAILED: bad" in printed.out
    assert "ZeroDivisionError" in printed.err
