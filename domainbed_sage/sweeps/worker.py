"""One process of a sweep on this machine: it executes one run after the other, as `local` tells it to."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import ErrorReport
from domainbed_sage.core.plugins import load_installed, load_plugin
from domainbed_sage.data import own
from domainbed_sage.data.specs import DatasetSpec
from domainbed_sage.training import train

_stop, _running = threading.Event(), threading.Event()
_unfit: list[ErrorReport] = []  # why this process cannot execute any run


def initialise(
    threads: int,
    plugins: Sequence[Path],
    folders: Sequence[DatasetSpec],
    devices: "multiprocessing.Queue[str] | None",
) -> None:
    """Set up this process.

    Args:
        threads: processor cores of its own.
        plugins: files to load.
        folders: folders of images to know as datasets.
        devices: where it takes its value of CUDA_VISIBLE_DEVICES from.
    """
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    torch.set_num_threads(threads)
    multiprocessing.set_start_method("fork", force=True)  # of the loaders; a spawned one imports torch anew each time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends it to all; the parent decides
    signal.signal(signal.SIGTERM, _ask_to_stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        load_installed()
        for plugin in plugins:
            load_plugin(plugin)
        own.adopt(folders)
    except BaseException as error:  # a pool would take it for a process that was killed
        _unfit.append(ErrorReport.of(error))


def execute(run: RunConfig, machine: Machine) -> ErrorReport | None:
    """Execute a run in its folder below ``machine.output_dir``; returns why it failed, if it did.

    An exception would be pickled for the parent process, and break the whole pool if it cannot be rebuilt there.
    """
    if _unfit:
        return _unfit[0]
    _running.set()
    try:
        train.run(run, replace(machine, output_dir=machine.output_dir / run.folder_name), _stop)
        return None
    except BaseException as error:
        return ErrorReport.of(error)
    finally:
        _running.clear()
        if _stop.is_set():
            os._exit(0)  # nobody waits for the result, and from Python 3.12 on nobody would end this process


def _end_with_parent() -> None:
    """End when the parent does: otherwise a worker would wait forever, and keep its memory and its run's lock."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _ask_to_stop(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    _stop.set()
    if not _running.is_set():
        os._exit(0)
