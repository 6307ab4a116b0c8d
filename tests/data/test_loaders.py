"""Loader processes: what arrives of them, limits of the machine, and the ways in which they are started."""

import errno
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
from contextlib import closing
from multiprocessing import popen_fork
from pathlib import Path

import pytest
import torch
from helpers import _start, ended
from loader_cases import Items, children, values
from torch.utils.data._utils.pin_memory import pin_memory

from domainbed_sage.core import limits
from domainbed_sage.core.errors import ErrorReport, UserError
from domainbed_sage.core.plugins import load_plugin
from domainbed_sage.data import loaders
from domainbed_sage.data.loaders import loaded


@pytest.fixture(autouse=True)
def no_loader_is_left():
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture
def started_by():
    """Set how processes are started."""
    before = multiprocessing.get_start_method()
    yield lambda method: multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_start_method(before, force=True)


# What arrives


class PickyError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.lock = threading.Lock()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_items_in_order(num_workers):
    assert values(loaded(Items(), range(3, 9), num_workers)) == [3, 4, 5, 6, 7, 8]
    assert values(loaded(Items(), [5, 1, 5], num_workers)) == [5, 1, 5]
    assert values(loaded(Items(), [], num_workers)) == []


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("dog.jpg cannot be decoded\nTwo lines.", ["a", "b"]), "UserError"),
        (KeyError("dog"), "KeyError"),
        (PickyError("a", "b"), "PickyError"),
        (OSError(errno.EIO, "Input/output error", "dog.jpg"), "OSError"),
    ],
)
def test_an_error_arrives_as_itself(num_workers, error, kind):
    def happen(key):
        if key == 2:
            raise error

    seen = []
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which is the question
        seen.extend(values(loaded(Items(happen), range(9), num_workers)))
    assert (type(caught.value).__name__, str(caught.value)) == (kind, str(error))
    assert getattr(caught.value, "mistakes", None) == getattr(error, "mistakes", None)
    assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)
    assert num_workers == 0 or "in happen" in caught.value.__notes__[0]


def test_an_item_that_cannot_be_sent():
    class Odd(Items):
        def __getitem__(self, key):
            return lambda: key

    with pytest.raises(Exception, match=r"^Can't pickle"):
        list(loaded(Odd(), range(9), 1))


def test_a_full_disk_is_not_shared_memory():
    """The dataset's own error: it writes to a cache, for instance."""

    def happen(key):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        list(loaded(Items(happen), range(9), 1))


def test_pinned_memory():
    """torch's thread opens a parcel and pins what is in it; reports of errors it leaves alone."""

    class Pinned:
        def pin_memory(self):
            return "pinned"

    Pinned.__qualname__, globals()["Pinned"] = "Pinned", Pinned

    class Some(Items):
        def __getitem__(self, key):
            return Pinned()

    assert pin_memory(loaders._Packed(Some())[0]) == "pinned"
    for unpinned in (ErrorReport.of(UserError("m")), loaders._Parcel.of(lambda: None)):
        assert pin_memory(unpinned) is unpinned


def test_the_global_generator_is_not_touched():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    list(loaded(Items(), range(2), 1))
    list(loaded(Items(), range(2), 0))
    assert torch.equal(torch.rand(2), expected)


# Limits of the machine


def test_a_loader_that_is_killed():
    def happen(key):
        if key == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match=limits.KILLED.meaning):
        list(loaded(Items(happen), range(9), 2))


def test_shared_memory_that_is_full(monkeypatch):
    words = "unable to allocate shared memory(shm) for file </torch_7>: No space left on device (28)"

    def full(storage):
        raise RuntimeError(words)

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    with pytest.raises(UserError, match=rf"{limits.SHARED_MEMORY.meaning} \({words[:20]}"):
        list(loaded(Items(), range(9), 1))


def test_a_long_path_of_temporary_files(tmp_path):
    long = tmp_path / ("scratch" * 15)
    long.mkdir()
    messages = multiprocessing.get_context("forkserver").Queue()
    assert ended(_start(_with_temporary_files_in, str(long), messages), 120) == 0
    assert messages.get(timeout=60).startswith(f"{limits.TEMPORARY.meaning} (AF_UNIX path too long")


def _with_temporary_files_in(folder, messages):
    tempfile.tempdir = folder
    multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined] # the test's own, if it has one
    try:
        list(loaded(Items(), range(9), 1))
    except UserError as error:
        messages.put(str(error))


def items_with(open_files):
    """How many items arrive, and are kept, if so many more files may be opened; and the message, if not all do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held, message = [], ""
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + open_files, hard))
    try:
        with closing(loaded(Items(), range(60), 2)) as batches:
            held.extend(batches)
    except UserError as error:
        message = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return len(held), message


def test_a_loader_whose_death_shows_late():
    """Its connections have ended before it has: it is no lack of open files."""

    class Dying(HandedOver):
        def __reduce__(self):
            threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return super().__reduce__()

    class Some(Items):
        def __getitem__(self, key):
            return Dying(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    with pytest.raises(UserError, match=limits.KILLED.meaning):
        list(loaded(Some(), range(9), 1))


def test_too_few_open_files(monkeypatch):
    """Whatever it is that finds no place: pipes, processes, the tensors that come."""
    monkeypatch.setattr(loaders, "CUT_OFF_S", 0.2)
    for open_files in (*range(1, 25, 2), 40, 60):
        arrived, message = items_with(open_files)
        assert arrived < 60
        assert message.startswith(limits.OPEN_FILES.meaning)
        assert children() == []
    assert items_with(150) == (60, "")


class HandedOver:
    """Something whose way out of a loader process is cut off."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return _cut_off, (self.error,)


def _cut_off(error):
    raise error


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")])
def test_a_loader_process_that_cannot_accept_a_connection(error, monkeypatch):
    """It has no file left to open; the traceback is its own, and here the connection just ends."""
    monkeypatch.setattr(loaders, "CUT_OFF_S", 0.2)

    class Some(Items):
        def __getitem__(self, key):
            return HandedOver(error)

    with pytest.raises(UserError, match=limits.OPEN_FILES.meaning):
        list(loaded(Some(), range(9), 1))


def test_not_all_processes_can_be_started(monkeypatch):
    launch, number = popen_fork.Popen._launch, iter(range(9))  # type: ignore[attr-defined]

    def refuse(self, process):
        if next(number) == 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        launch(self, process)

    monkeypatch.setattr(popen_fork.Popen, "_launch", refuse)
    with pytest.raises(UserError, match=limits.PROCESSES.meaning):
        list(loaded(Items(), range(9), 2))


# Processes that are not forks

PLUGIN = """
from torch.utils.data import Dataset
import torch

class Error(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")

class Squares(Dataset):
    def __getitem__(self, key):
        if key == 7:
            raise Error("a", "b")
        return torch.full((3,), key ** 2)
"""


@pytest.mark.usefixtures("forget_plugins")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_start_processes(started_by, tmp_path, method):
    """A dataset of a plugin, which the loader process has not loaded."""
    (tmp_path / "squares.py").write_text(PLUGIN)
    load_plugin(tmp_path / "squares.py")
    (name,) = (name for name in sys.modules if name.startswith("domainbed_sage_plugin_squares"))
    dataset = sys.modules[name].Squares()
    started_by(method)
    assert values(loaded(dataset, range(3), 1)) == [0, 1, 4]
