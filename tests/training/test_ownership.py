"""Two processes and one folder: refusal, succession by a later start of the same job, and ghosts."""

import errno
import fcntl
import logging
import os
import signal
import threading

import pytest
from helpers import assert_same, ended, on_cpu, records, run, small_config, start, wait_for

from domainbed_sage.core.errors import UserError
from domainbed_sage.training import ownership, train
from domainbed_sage.training.ownership import Fenced, Owner, owned
from domainbed_sage.training.run_folder import RunFolder

FIRST = Owner(1, "node1", "77_3", 0)
SECOND = Owner(2, "node2", "77_3", 1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(ownership, "PATIENCE_S", 0.2)
    monkeypatch.setattr(ownership, "LOOK_EVERY_S", 0.05)


def test_owner_of_an_array_task():
    environ = {
        "SLURM_JOB_ID": "80",
        "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_RESTART_COUNT": "2",
    }
    owner = Owner.this_process(environ)
    assert (owner.pid, owner.job, owner.restart) == (os.getpid(), "77_3", 2)
    assert Owner.this_process({"SLURM_JOB_ID": "80"}).job == "80"
    assert Owner.this_process({}).job == ""


@pytest.mark.parametrize("owner", [FIRST, SECOND, Owner(3, "host-a.b")])
def test_lock_file_names_its_owner(tmp_path, owner):
    with owned(tmp_path / "lock", owner):
        assert ownership.read(tmp_path / "lock") == owner
        assert str(owner) in (tmp_path / "lock").read_text()


@pytest.mark.parametrize("content", ["", "process", "process 1 on n", b"\xff\xfe"])
def test_lock_file_of_nobody(tmp_path, content):
    path = tmp_path / "lock"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert ownership.read(path) is None
    with owned(path, FIRST):
        assert ownership.read(path) == FIRST


@pytest.mark.parametrize(
    "other",
    [Owner(2, "node2", "77_4", 5), Owner(2, "node2", "77_3", 0), Owner(2, "node2"), Owner(2, "node2", "78_3", 1)],
    ids=["other task", "same start", "no job", "other job"],
)
def test_whoever_does_not_succeed_the_owner_is_refused(tmp_path, other):
    with owned(tmp_path / "lock", FIRST) as ownership_of_first:
        with pytest.raises(UserError, match=r"is in use by process 1 on node1 \(job 77_3, start 0\)\. Two runs never"):
            owned(tmp_path / "lock", other).__enter__()
        ownership_of_first.check()


def test_outside_of_slurm_nobody_succeeds_anybody():
    assert not Owner(2, "a", "", 1).succeeds(Owner(1, "a", "", 0))


def test_a_later_start_fences_the_ghost_and_goes_on(tmp_path, caplog):
    path = tmp_path / "lock"
    with owned(path, FIRST) as ghost:
        ghost.check()
        with caplog.at_level(logging.WARNING), owned(path, SECOND) as successor:
            successor.check()
            assert "its old owner did not let go" in caplog.text
            with pytest.raises(Fenced, match=r"belongs to process 2 on node2 \(job 77_3, start 1\) now; process 1 on"):
                ghost.check()
            with pytest.raises(UserError, match="in use by process 2"):  # the new file is locked as well
                owned(path, FIRST).__enter__()
    with owned(path, Owner(4, "node1", "77_3", 2)) as again:
        again.check()


def test_a_ghost_that_comes_late_goes_away(tmp_path):
    """It was started first, and reaches the folder when its successor has been there and is gone."""
    with owned(tmp_path / "lock", SECOND):
        pass
    with pytest.raises(Fenced, match=r"belongs to process 2 on node2 .*; process 1 on node1 .* came too late"):
        owned(tmp_path / "lock", FIRST).__enter__()
    with owned(tmp_path / "lock", Owner(3, "node3", "78_3", 0)):
        pass


def test_a_look_does_not_get_in_the_way(tmp_path, monkeypatch):
    """A shared lock, which NFS gives on a file that is open for reading; whoever comes meanwhile tries again."""
    path = tmp_path / "lock"
    with owned(path, FIRST):
        pass
    monkeypatch.setattr(ownership, "LOOK_EVERY_S", 0.3)
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with owned(path, FIRST) as mine:
            mine.check()


def test_removed_lock_file_fences_too(tmp_path):
    with owned(tmp_path / "lock", FIRST) as ghost:
        (tmp_path / "lock").unlink()
        with pytest.raises(Fenced, match="belongs to nobody known now"):
            ghost.check()


def test_is_held(tmp_path):
    path = tmp_path / "lock"
    assert not ownership.is_held(path)
    with owned(path, FIRST):
        assert ownership.is_held(path)
    assert not ownership.is_held(path)


def test_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with owned(tmp_path / "lock", FIRST) as mine:
        mine.check()
    assert "this file system has no locks (No locks available)" in caplog.text


def test_a_lock_file_that_was_exchanged_while_we_came(tmp_path, monkeypatch):
    """We locked a file that is no longer there: whoever looks at the path would find it free."""
    path, real = tmp_path / "lock", ownership._try_lock
    exchanged = []

    def slowly(file, *kind):
        if not exchanged:
            exchanged.append(path.unlink())
            path.touch()
        return real(file, *kind)

    monkeypatch.setattr(ownership, "_try_lock", slowly)
    with owned(path, FIRST) as mine:
        mine.check()
        assert ownership.is_held(path)


def test_a_child_does_not_keep_the_lock(tmp_path):
    """A loader process lives on for some seconds after its parent was killed."""
    (until, parent), (born, child) = os.pipe(), os.pipe()
    with owned(tmp_path / "lock", FIRST):
        pid = os.fork()
        if not pid:
            os.close(parent)
            os.write(child, b"1")
            os.read(until, 1)  # until the parent closes its end
            os._exit(0)
        os.read(born, 1)
    try:
        assert not ownership.is_held(tmp_path / "lock")
    finally:
        os.close(parent)
        os.waitpid(pid, 0)
        for end in (until, born, child):
            os.close(end)


# Every write looks first, each for itself


@pytest.fixture
def ghost(tmp_path):
    """A folder with records and a checkpoint, whose owner has been succeeded."""
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.append({"step": 0})
        folder.save({"step": 1})
        (folder.path / "lock").write_bytes(SECOND.line())
        yield folder


def fail_in(folder):
    with folder.logs():
        raise ZeroDivisionError


LOOKS = {
    "append": lambda folder: folder.append({"step": 1}),
    "save": lambda folder: folder.save({"step": 2}),
    "finish with weights": lambda folder: folder.finish({"w": 1}),
    "finish without": lambda folder: folder.finish(None),
    "progress": lambda folder: folder.progress({"step": 1}),
    "set aside": lambda folder: folder._set_aside(folder.checkpoint, "is damaged"),
    "cut": lambda folder: folder._cut_records(0),
    "restore": lambda folder: folder.restore(),
    "fail": fail_in,
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_ghost_writes_nothing(ghost, name):
    before = {path.name: path.read_bytes() for path in ghost.path.iterdir()}
    with pytest.raises(Fenced, match=r"belongs to process 2 on node2"):
        LOOKS[name](ghost)
    logs = {"out.txt": b"", "err.txt": b""} if name == "fail" else {}
    assert {path.name: path.read_bytes() for path in ghost.path.iterdir()} == before | logs


@pytest.mark.parametrize("name", LOOKS)
def test_an_owner_does(ghost, name):
    """Otherwise the test above could not fail."""
    (ghost.path / "lock").write_bytes(ghost._ownership.me.line())
    before = {path.name: path.read_bytes() for path in ghost.path.iterdir()}
    if name == "fail":
        with pytest.raises(ZeroDivisionError):
            LOOKS[name](ghost)
    else:
        LOOKS[name](ghost)
    assert ({path.name: path.read_bytes() for path in ghost.path.iterdir()} == before) == (name == "restore")


# Real training processes


def start_number(restart):
    return {"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": str(restart)}


def succeed_a_running_one(tmp_path, monkeypatch, between):
    """A run of many steps is taken over in the middle; what both wrote must be an undisturbed run."""
    config = small_config("SAGE", steps=400, checkpoint_freq=50)
    ghost = start(config, tmp_path / "run", environ=start_number(0), look_every_s=0.02)
    wait_for(lambda: (tmp_path / "run" / "checkpoint.pt").exists(), ghost)
    between(ghost)
    monkeypatch.setattr(ownership, "PATIENCE_S", 3.0)
    with monkeypatch.context() as patch:
        for name, value in start_number(1).items():
            patch.setenv(name, value)
        run(config, tmp_path / "run")
    assert_same(tmp_path / "run", run(config, tmp_path / "undisturbed"))
    return ghost


def test_a_running_ghost_stops(tmp_path, monkeypatch):
    ghost = succeed_a_running_one(tmp_path, monkeypatch, lambda ghost: None)
    assert ended(ghost) == 1


def test_a_hung_ghost_is_left_behind_and_writes_nothing_when_it_wakes(tmp_path, monkeypatch):
    ghost = succeed_a_running_one(tmp_path, monkeypatch, lambda ghost: os.kill(ghost.pid, signal.SIGSTOP))
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    os.kill(ghost.pid, signal.SIGCONT)
    assert ended(ghost) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == files


def test_another_job_is_refused_while_it_runs(tmp_path):
    config = small_config("SAGE", steps=2000, checkpoint_freq=50)
    process = start(config, tmp_path / "run")
    wait_for(lambda: (tmp_path / "run" / "checkpoint.pt").exists(), process)
    with pytest.raises(UserError, match=rf"is in use by process {process.pid} on "):
        train.run(config, on_cpu(tmp_path / "run"))
    process.kill()
    ended(process)
    assert len(records(tmp_path / "run")) >= 1


def test_a_lock_that_was_given_back_is_forgotten(tmp_path):
    before = set(ownership._locks)
    with owned(tmp_path / "lock", FIRST):
        assert len(ownership._locks - before) == 1
    assert ownership._locks == before


def test_a_lock_file_that_goes_while_it_is_looked_at(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ownership, "regular", lambda path: True)
    assert ownership.is_held(tmp_path / "lock") is False
    assert caplog.text == ""
