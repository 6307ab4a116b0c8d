"""No loader process is left, whatever happens, and no signal that is meant for the run ends one before."""

import ctypes
import multiprocessing
import os
import signal
import time
from contextlib import closing, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from helpers import _start, alive, ended, wait_for
from loader_cases import Items, children, values
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from domainbed_sage.data import loaders
from domainbed_sage.data.loaders import loaded

STUCK_S = 1000.0


@pytest.fixture(autouse=True)
def no_loader_is_left():
    yield
    assert multiprocessing.active_children() == []


# The end


@pytest.mark.parametrize("items", [0, 1, 5])
def test_closing_ends_them(items):
    with closing(loaded(Items(), range(100), 2)) as batches:
        for _ in range(items):
            next(batches)
        assert len(children()) == (2 if items else 0)
    assert children() == []


def test_closing_kills_those_that_do_not_listen(monkeypatch):
    monkeypatch.setattr(loaders, "PATIENCE_S", 0.5)
    with closing(loaded(Items(_stuck), range(100), 2)) as batches:
        next(batches)
        time.sleep(1)
    assert children() == []


def test_closing_waits_for_no_lock(monkeypatch):
    """A loader that is killed may hold the lock of an event that torch then waits for.

    torch has then not yet forgotten the loaders, and takes their end for an error.
    """
    kill = BaseProcess.kill

    def kill_and_wait(process):
        kill(process)
        time.sleep(0.2)

    monkeypatch.setattr(loaders, "PATIENCE_S", 0.2)
    monkeypatch.setattr(BaseProcess, "kill", kill_and_wait)
    with closing(loaded(Items(), range(100), 2)) as batches:
        next(batches)
        monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_shutdown_workers", lambda self: time.sleep(STUCK_S))
    monkeypatch.undo()
    assert children() == []


def _leave_open(pids):
    """End with an error while the loaders work and nobody closes their generator."""
    global open_batches
    open_batches = loaded(Items(), range(10**9), 2)  # type: ignore[name-defined]
    next(open_batches)  # type: ignore[name-defined]
    pids.put(children())
    raise SystemExit(3)


def _wait_with(method, happen, pids):
    multiprocessing.set_start_method(method, force=True)
    batches = loaded(Items(happen), range(10**9), 2)
    next(batches)
    pids.put(children())
    time.sleep(STUCK_S)


def _nothing(key):
    pass


def _stuck(key):
    if key > 0:
        time.sleep(0.5)  # until item 0 has been sent
        ctypes.PyDLL(None).sleep(int(STUCK_S))  # no other thread of this process gets a word in


def test_a_process_ends_whose_loaders_live():
    pids = multiprocessing.get_context("forkserver").Queue()
    assert ended(_start(_leave_open, pids), 120) == 3
    loader_pids = pids.get(timeout=60)
    assert len(loader_pids) == 2
    assert not any(map(alive, loader_pids))


@pytest.mark.parametrize(("method", "happen"), [("fork", _nothing), ("fork", _stuck), ("forkserver", _nothing)])
def test_loaders_end_with_their_run(method, happen):
    """The run is killed: loaders that fill a pipe nobody reads, or that are stuck, or are no children of it."""
    pids = multiprocessing.get_context("forkserver").Queue()
    process = _start(_wait_with, method, happen, pids)
    loader_pids = pids.get(timeout=120)
    assert len(loader_pids) == 2
    assert all(map(alive, loader_pids))
    process.kill()
    assert ended(process) == -signal.SIGKILL
    wait_for(lambda: not any(map(alive, loader_pids)))


# Signals


@pytest.mark.parametrize("signum", sorted(loaders.DEAF_TO))
def test_signals_for_the_run_end_no_loader(monkeypatch, signum):
    """From its first moment to its last, and if it is not the run that sends them."""
    set_up = loaders._set_up

    def slowly(worker):
        time.sleep(0.5)
        set_up(worker)

    monkeypatch.setattr(loaders, "_set_up", slowly)
    others = multiprocessing.get_context("fork")
    known = _children_of(os.getpid())
    with closing(loaded(Items(lambda key: time.sleep(0.02)), range(30), 2)) as batches:
        killer = others.Process(target=_signal_new_children, args=(os.getpid(), known, signum))
        killer.start()
        assert values(batches) == list(range(30))
        killer.join()
    assert killer.exitcode == 0


def _children_of(pid):
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def _signal_new_children(parent, known, signum):
    """Send a signal to the loaders of a process again and again, until there are none."""
    sent, give_up = 0, time.monotonic() + 60
    while time.monotonic() < give_up:
        new = _children_of(parent) - known - {os.getpid()}
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
                sent += 1
        if sent and not new:
            return
        time.sleep(0.05)
    raise SystemExit(1)


def test_the_run_can_end_its_loaders():
    """As multiprocessing does at the end of a process; torch takes an end with status 0 for no failure."""
    with closing(loaded(Items(lambda key: time.sleep(0.01)), range(10**6), 2)) as batches:
        next(batches)
        processes = multiprocessing.active_children()
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
