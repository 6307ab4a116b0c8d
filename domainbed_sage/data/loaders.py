"""Loader processes: what they produce, how it arrives, and how they end with the run, however that ends."""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker, util
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from domainbed_sage.core import limits
from domainbed_sage.core.errors import ErrorReport
from domainbed_sage.core.plugins import load_installed, load_plugin, loaded_plugins

T = TypeVar("T")

DEAF_TO = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2}
PATIENCE_S = 10.0
LOOK_EVERY_S = 1.0
DEATH_SHOWS_IN_S = 0.2
CUT_OFF_S = 10.0  # a connection that ends is the first sign of a death, which takes its time where memory is full
PR_SET_PDEATHSIG = 1


def loaded(
    dataset: Dataset[T], keys: Iterable[Any], num_workers: int = 0, *, pin_memory: bool = False
) -> Generator[T, None, None]:
    """Yield ``dataset[key]`` for each key in order, prepared ahead by loader processes if there are any.

    Close the generator (`contextlib.closing`) to end the processes before its last item. The processes ignore signals
    that Slurm and terminals send to every process of a run, which has to save its checkpoint first.

    Raises:
        UserError: the machine refuses memory, open files or the like; see `limits`.
        Exception: whatever `dataset` raises, here as in a loader process.
    """
    if num_workers == 0:
        yield from DataLoader(dataset, batch_size=None, sampler=keys, pin_memory=pin_memory, generator=_own_generator())
        return
    loader = DataLoader(
        _Packed(dataset),
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_set_up,
        generator=_own_generator(),
    )
    processes = _start(loader)
    try:
        for item in _received(processes):
            if isinstance(item, ErrorReport):
                raise item.error()
            yield item
    finally:
        processes.end()


def _own_generator() -> torch.Generator:
    """A generator for a loader, which would otherwise draw an unused number from the global one."""
    return torch.Generator()


@dataclass(frozen=True)
class _Parcel:
    """An item of the dataset, pickled, with its tensors in shared memory; or the error that prevented this.

    torch would pickle it in a background thread, which prints an error and goes on, while the run waits forever.
    """

    content: bytes | ErrorReport

    @classmethod
    def of(cls, item: Any) -> "_Parcel":
        try:
            return cls(bytes(ForkingPickler.dumps(item)))
        except Exception as error:
            return cls(ErrorReport.of(error))

    def open(self) -> Any:
        if isinstance(self.content, ErrorReport):
            raise self.content.error()
        return pickle.loads(self.content)

    def pin_memory(self) -> Any:
        """See torch's DataLoader, which calls this in a thread, where an error would lose its class."""
        return self if isinstance(self.content, ErrorReport) else self.open().pin_memory()


class _Packed(Dataset[_Parcel | ErrorReport]):
    """Another dataset, in a form that can be sent to a loader process and returns its items or errors."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> _Parcel | ErrorReport:
        try:
            item = self.dataset[key]
        except Exception as error:
            return ErrorReport.of(error)
        return _Parcel.of(item)

    # A process that is not a fork knows the classes of a plugin only once it has loaded the plugin.

    def __getstate__(self) -> tuple[list[Path], bytes]:
        return loaded_plugins(), bytes(ForkingPickler.dumps(self.dataset))

    def __setstate__(self, state: tuple[list[Path], bytes]) -> None:
        plugins, dataset = state
        load_installed()
        for plugin in plugins:
            load_plugin(plugin)
        self.dataset = pickle.loads(dataset)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals meant for the run; a process started inside inherits this, so that they never end it."""
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # starting it inside would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_up(worker: int) -> None:
    """Set up a loader process: one thread; ignores signals meant for the run, and ends when the run is gone."""
    del worker
    torch.set_num_threads(1)
    for signum in DEAF_TO - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_run, daemon=True).start()


def _end_with_run() -> None:
    """End this process when the run's process tells it to by SIGTERM, as multiprocessing does at exit, or is gone."""
    run, told_by = multiprocessing.parent_process(), None
    while run and run.is_alive() and told_by != run.pid:
        told = signal.sigtimedwait({signal.SIGTERM}, LOOK_EVERY_S)
        told_by = told.si_pid if told else None
    os._exit(0)


class _Processes(_MultiProcessingDataLoaderIter):
    """torch's iterator over the output of loader processes, leaving none of them behind."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        try:
            super().__init__(loader)
        except BaseException:
            self._shutdown = True  # torch's own shutdown needs attributes not yet set
            self._kill()
            raise

    def end(self) -> None:
        """Ask the processes to end, and kill those that do not within `PATIENCE_S`.

        A killed one may still hold a lock for which the others, and this process, would wait forever.
        """
        shutdown = threading.Thread(target=self._shutdown_workers, daemon=True)
        shutdown.start()
        with suppress(RuntimeError):  # torch's, on the death of a loader process
            shutdown.join(PATIENCE_S)
        self._kill()
        shutdown.join(DEATH_SHOWS_IN_S)  # it may have noticed their end, and not have recorded that yet

    def _kill(self) -> None:
        for process in getattr(self, "_workers", ()):
            for _ in range(2):
                with suppress(RuntimeError):  # see `end`: the first time only
                    process.kill()
                    process.join(PATIENCE_S)


def _start(loader: DataLoader[Any]) -> _Processes:
    loader.check_worker_number_rationality()
    with limits.explained(*limits.LOADERS):
        util.get_temp_dir()  # shared by all of them, and removed by this process, however they end
        try:
            with _signals_blocked():
                return _Processes(loader)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold open files, which the report may need
            raise


def _received(processes: _Processes) -> Iterator[Any]:
    """Yield what the loader processes send; if one of them died, raise that, and not the error that it caused."""
    with limits.explained(*limits.LOADERS):
        try:
            for sent in processes:
                yield sent.open() if isinstance(sent, _Parcel) else sent
        except Exception as error:
            patience = CUT_OFF_S if isinstance(error, EOFError | ConnectionError) else DEATH_SHOWS_IN_S
            dying = connection.wait([process.sentinel for process in processes._workers], patience)
            for process in processes._workers:
                if process.sentinel in dying:
                    process.join(patience)  # files of a process are closed a moment before it has ended
            codes = [process.exitcode for process in processes._workers if process.exitcode]
            if not codes:
                raise
            ends = {f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}" for code in codes}
            raise RuntimeError(f"A loader process was ended {', '.join(sorted(ends))}") from error
