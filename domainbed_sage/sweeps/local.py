"""Run a sweep's missing runs on this machine, in parallel processes."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch

from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import ErrorReport, NoSpace, Stopped, UserError
from domainbed_sage.core.files import regular
from domainbed_sage.core.plugins import loaded_plugins
from domainbed_sage.data import own
from domainbed_sage.sweeps import worker
from domainbed_sage.sweeps.gpus import visible
from domainbed_sage.sweeps.overview import Overview
from domainbed_sage.training.notes import note_refusal
from domainbed_sage.training.ownership import Fenced

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
FRUITLESS_ATTEMPTS = 3
IDLE_S = 30.0  # for processes that only have to exit


class Killed(Exception):  # noqa: N818 - reads as what it is
    """A run whose processes were killed again and again."""


@dataclass(frozen=True)
class Outcome:
    """What became of the runs: finished now, finished before, and failed with the reason."""

    done: int
    before: int
    failed: dict[str, str]
    interrupted: bool = False


def run_missing(
    runs: Sequence[RunConfig],
    machine: Machine,
    jobs: int | None = None,
    *,
    per_gpu: int = 1,
    stop: threading.Event | None = None,
) -> Outcome:
    """Execute the runs whose folders below ``machine.output_dir`` have no `done` marker.

    Every process works on one run at a time with an equal share of the processor cores; GPUs are dealt out to the
    processes in turn. Ctrl-C, or SIGTERM, saves a checkpoint of every active run; the same call later continues them. A
    process that is killed costs nothing but time: its run continues in another one, unless processes are killed three
    times in a row without finishing any run.

    Args:
        runs: the runs.
        machine: where they run; `output_dir` is the folder of all of them.
        jobs: processes; by default `per_gpu` on each GPU, or, without GPUs, one per two cores and at least two where
            there are two cores.
        per_gpu: processes on each GPU; where there is none, the number of processes if it is more than 1.
        stop: what Ctrl-C does, for callers that are not in the main thread.

    A full disk ends the sweep: runs that have not begun are not started.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs should be a number of processes, 1 or more. Found {jobs}.")
    missing = [run for run in runs if not regular(machine.output_dir / run.folder_name / "done")]
    before = len(runs) - len(missing)
    workers = _workers(len(runs), len(missing), _shares(machine.device, jobs, per_gpu), stop)
    overview = Overview(machine.output_dir, runs, missing, rows=workers.jobs)
    failed: dict[str, str] = {}
    interrupted = False
    previous = _on_terminate(signal.default_int_handler)
    try:
        left, fruitless = missing, 0
        while left and fruitless < FRUITLESS_ATTEMPTS:
            now_left = _attempt(left, machine, workers, overview, failed)
            fruitless = fruitless + 1 if len(now_left) == len(left) else 0
            left = now_left
        reason = f"worker processes were killed {FRUITLESS_ATTEMPTS} times and no run was finished (out of memory?)"
        for run in left:
            failed[run.folder_name] = reason
            note_refusal(machine.output_dir / run.folder_name, Killed(reason))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        _on_terminate(previous)
        overview.close()
    done = sum(regular(machine.output_dir / run.folder_name / "done") for run in missing)
    return Outcome(done, before, failed, interrupted)


def _on_terminate(handler: Any) -> Any:
    """Set what SIGTERM does, and return what it did; only the main thread may do so, others change nothing."""
    if threading.current_thread() is threading.main_thread():
        return signal.signal(signal.SIGTERM, handler)
    return handler


def available_cores() -> int:
    """Processor cores that this process may use; in a Slurm job no more than those of its task."""
    usable = len(os.sched_getaffinity(0))
    return min(int(os.environ.get("SLURM_CPUS_PER_TASK") or usable), usable)


@dataclass(frozen=True)
class _Workers:
    jobs: int
    threads: int
    devices: tuple[str, ...]
    stop: threading.Event

    def pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        devices = context.Queue()
        for device in self.devices:
            devices.put(device)
        arguments = (self.threads, loaded_plugins(), own.loaded(), devices if self.devices else None)
        return ProcessPoolExecutor(self.jobs, context, initializer=worker.initialise, initargs=arguments)


def _workers(
    runs: int, missing: int, shares: tuple[int | None, tuple[str, ...]], stop: threading.Event | None
) -> _Workers:
    cores = available_cores()
    wanted, devices = shares
    jobs = wanted or min(max(cores // 2, min(cores, 2)), max(runs, 1))
    threads = max(cores // jobs, 1)  # for any `missing`: a continued run needs the threads that it began with
    return _Workers(min(jobs, max(missing, 1)), threads, devices, stop or threading.Event())


def _shares(device: torch.device, jobs: int | None, per_gpu: int) -> tuple[int | None, tuple[str, ...]]:
    """The number of processes, unless the cores determine it, and CUDA_VISIBLE_DEVICES of each."""
    if device.type != "cuda":
        return jobs or (per_gpu if per_gpu > 1 else None), ()
    if ":" in str(device):  # this one and no other
        return jobs or per_gpu, ()
    gpus = visible() or [str(index) for index in range(torch.cuda.device_count())]
    jobs = jobs or per_gpu * max(len(gpus), 1)
    return jobs, tuple(islice(cycle(gpus), jobs))


def _attempt(
    runs: Sequence[RunConfig], machine: Machine, workers: _Workers, overview: Overview, failed: dict[str, str]
) -> list[RunConfig]:
    """Work through the runs in a pool, note failures, and return the runs that a dying process left undone."""
    pool = workers.pool()
    waiting, left = deque(runs), list[RunConfig]()
    active: dict[Future[ErrorReport | None], RunConfig] = {}
    try:
        while active or (waiting and not left):
            while waiting and not left and len(active) < workers.jobs:  # no more: what a pool has taken, it begins
                run = waiting.popleft()
                try:
                    overview.begin(run)
                    active[pool.submit(worker.execute, run, machine)] = run
                except BrokenProcessPool:
                    left.append(run)
            finished, _ = wait(active, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            if workers.stop.is_set():
                raise KeyboardInterrupt
            for future in finished:
                run = active.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    left.append(run)
                elif _is_end_of_all(run, future.result(), machine, overview, failed):
                    waiting.clear()
            overview.look(list(active.values()))
    except KeyboardInterrupt:
        _end(pool, ask=True)
        raise
    if left:
        pool.shutdown()  # the other processes save checkpoints
    else:
        _end(pool, patience_s=IDLE_S)
    return [*left, *waiting]


def _is_end_of_all(
    run: RunConfig, report: ErrorReport | None, machine: Machine, overview: Overview, failed: dict[str, str]
) -> bool:
    """Record the outcome of a run, and return whether all others would fail alike."""
    if report is None:
        overview.finished(run, "")
        return False
    error = report.error()
    reason = report.message if isinstance(error, UserError) else f"{report.kind}: {report.message}"
    if not isinstance(error, UserError | Stopped):
        reason += " (see err.txt in its folder)"
    if not isinstance(error, Stopped):  # then the folder is another process's
        note_refusal(machine.output_dir / run.folder_name, error)
    failed[run.folder_name] = reason
    overview.finished(run, reason)
    return isinstance(error, NoSpace | Fenced)


def _end(pool: ProcessPoolExecutor, *, ask: bool = False, patience_s: float | None = None) -> None:
    """End the processes of a pool; `ask` those that work on a run to save its state."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    if ask:
        for process in processes:
            process.terminate()
    until = None if patience_s is None else time.monotonic() + patience_s
    for process in processes:  # not the pool, which may wait forever, or not at all when it is shut down again
        process.join(None if until is None else max(until - time.monotonic(), 0))
        if process.is_alive():
            log.warning("A process that has nothing left to do does not end; it is killed.")
            process.kill()
            process.join()
