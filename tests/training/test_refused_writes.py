"""The system refuses a write, or something else stands in a file's place: one message, and nothing half written."""

import builtins
import errno
import json
import logging
import os
from pathlib import Path

import pytest
from helpers import assert_same, run, small_config

from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.training import ownership
from domainbed_sage.training.notes import note_refusal
from domainbed_sage.training.run_folder import RunFolder

ERRORS = ["EIO", "EMFILE", "ESTALE", "ENOTCONN", "EROFS", "EDQUOT", "EFBIG", "ENOSPC"]
RECORD = {"step": 0, "loss": 1.0}
WRITES = {
    "run.json": lambda folder: folder.claim(small_config()),
    "results.jsonl": lambda folder: folder.append(RECORD),
    "checkpoint.pt": lambda folder: folder.save({"step": 1}),
    "model.pkl": lambda folder: folder.finish({"w": 1}),
    "done": lambda folder: folder.finish(None),
    "progress.json": lambda folder: folder.progress({"step": 1}),
    "out.txt": lambda folder: open_logs(folder),
}


def open_logs(folder):
    with folder.logs():
        pass


@pytest.fixture
def folder(tmp_path):
    with (folder := RunFolder(tmp_path / "run")).locked():
        yield folder


def refuse(monkeypatch, name, number):
    """Every attempt to write a file of this name, or of one that is to become it, fails."""
    whole = builtins.open

    def refused(path, mode):
        return set(mode) & set("wa+") and Path(path).name.startswith(name)

    def path_open(self, mode="r", *args, **kwargs):
        if refused(self, mode):
            raise OSError(number, os.strerror(number), str(self))
        return whole(self, mode, *args, **kwargs)

    def plain_open(path, mode="r", *args, **kwargs):
        if isinstance(path, str) and refused(path, mode):
            raise OSError(number, os.strerror(number), path)
        return whole(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", path_open)
    monkeypatch.setattr(builtins, "open", plain_open)
    monkeypatch.setattr(logging.FileHandler, "_open", lambda self: plain_open(self.baseFilename, "a"))


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("number", ERRORS)
def test_a_refused_write_is_a_message(folder, monkeypatch, name, number):
    with monkeypatch.context() as patch:
        refuse(patch, name, getattr(errno, number))
        with pytest.raises(UserError, match=rf"{name}") as caught:
            WRITES[name](folder)
    assert os.strerror(getattr(errno, number)) in str(caught.value)
    assert isinstance(caught.value, NoSpace) == (number in ("EDQUOT", "EFBIG", "ENOSPC"))
    assert [path.name for path in folder.path.iterdir()] == ["lock"]
    WRITES[name](folder)
    assert (folder.path / name).exists()


@pytest.mark.parametrize("number", ["EROFS", "EIO", "EMFILE", "EDQUOT"])
def test_a_lock_that_is_refused(tmp_path, monkeypatch, number):
    refuse(monkeypatch, "lock", getattr(errno, number))
    with pytest.raises(UserError, match=os.strerror(getattr(errno, number))):
        RunFolder(tmp_path / "run").locked().__enter__()


@pytest.mark.parametrize("number", ["EIO", "ENOTCONN"])
def test_a_lock_that_breaks(tmp_path, monkeypatch, number):
    def broken(*_):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(ownership.fcntl, "flock", broken)
    with pytest.raises(UserError, match=rf"run: {os.strerror(getattr(errno, number))}.*have it looked at"):
        RunFolder(tmp_path / "run").locked().__enter__()
    (tmp_path / "lock").touch()
    assert ownership.is_held(tmp_path / "lock") is False


def test_a_lock_that_cannot_be_read_is_no_ghost(folder, monkeypatch):
    """A stale handle says nothing about who owns the folder: this is trouble, not a successor."""
    monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.ESTALE, "Stale file handle")))
    with pytest.raises(UserError, match=r"Cannot read .*lock: Stale file handle"):
        folder.check_owner()


# A log is not worth a run


def test_a_log_that_cannot_be_written_costs_a_line(tmp_path, monkeypatch, capsys):
    """/dev/full is a disk without space."""
    undisturbed = run(small_config(), tmp_path / "undisturbed")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "out.txt").symlink_to("/dev/full")
    run(small_config(), tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if "out.txt cannot be written" in line]
    assert len(lines) == 1
    assert lines[0].endswith("([Errno 28] No space left on device). The run goes on.")
    (tmp_path / "run" / "out.txt").unlink()
    (tmp_path / "run" / "out.txt").touch()
    assert_same(tmp_path / "run", undisturbed)


# Something else in a file's place


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(small_config(steps=1), tmp_path_factory.mktemp("finished") / "run")


@pytest.mark.parametrize("name", ["done", "run.json", "lock", "checkpoint.pt", "results.jsonl"])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_something_else_in_the_place_of_a_file(tmp_path, name, kind):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / name
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(UserError, match=rf"{name} should be a file\. Found a {kind}\."):
        run(small_config(steps=1), tmp_path / "run")
    assert not (tmp_path / "run" / "failed.json").exists()


def test_an_empty_done_is_done(tmp_path, finished):
    """As `touch` makes it: a file is there."""
    (finished / "done").write_text("")
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    run(small_config(steps=1), finished)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


@pytest.mark.parametrize("pid", ["9" * 5000, "9" * 30, "-3", "٣"])
def test_a_lock_of_nobody(tmp_path, pid):
    """An owner that cannot be is none."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").write_text(f"process {pid} on node1 [ab]\n" + "x" * 10**6)
    run(small_config(steps=1), tmp_path / "run")
    assert (tmp_path / "run" / "done").exists()


def test_a_finished_run_needs_no_writing(tmp_path, monkeypatch):
    """On a file system that is mounted read-only."""
    folder = run(small_config(steps=1), tmp_path / "run")

    def refuse_all(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        for name in ("mkdir", "unlink", "replace"):
            patch.setattr(Path, name, refuse_all)
        patch.setattr(ownership, "owned", refuse_all)
        run(small_config(steps=1), folder)
        with pytest.raises(UserError, match="holds another run; it differs in: seed 0 → 1"):
            run(small_config(steps=1, seed=1), folder)


def test_a_word_on_a_refusal(tmp_path):
    """Whatever lies in the place of the lock, the sweep goes on to its other runs."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "lock").mkdir()
    for name in ("a", "b"):
        note_refusal(tmp_path / name, UserError("no data"))
        assert json.loads((tmp_path / name / "failed.json").read_text())["reason"] == "no data"


def test_a_torn_line_that_cannot_be_taken_back(folder, monkeypatch):
    """The first trouble is the one to tell; the next start cuts the line."""
    folder.append(RECORD)

    def refuse_both(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse_both)
        patch.setattr(os, "truncate", refuse_both)
        with pytest.raises(UserError, match=r"Cannot write .*results\.jsonl: Input/output error"):
            folder.append({"step": 3})
    assert folder.recorded == 1
    assert folder.restore() is None
    assert (folder.recorded, folder.results.read_text()) == (0, "")
