"""The lock of what launches into a results folder."""

import errno
import fcntl
import threading

import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.sweeps.cluster import ledger


def test_the_second_launcher_says_that_it_waits_and_waits(tmp_path, caplog):
    inside, end, order = threading.Event(), threading.Event(), []

    def first():
        with ledger.locked(tmp_path / "results"):
            inside.set()
            end.wait(60)
            order.append("first")

    def second():
        with ledger.locked(tmp_path / "results"):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(60)
    threads[1].start()
    while not caplog.messages and threads[1].is_alive():
        threads[1].join(0.01)
    assert "at work in" in caplog.messages[0]
    assert order == []
    end.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second"]


def test_alone_it_says_nothing(tmp_path, caplog):
    with ledger.locked(tmp_path / "results"):
        pass
    assert caplog.messages == []


def test_file_system_without_locks(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        pytest.raises(UserError, match=r"without locks \(No locks available\).* could submit runs twice"),
        ledger.locked(tmp_path),
    ):
        pass


def test_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"), ledger.locked(tmp_path / "file" / "results"):
        pass
