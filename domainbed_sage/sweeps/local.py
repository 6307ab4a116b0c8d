"""Run a sweep's missing runs on this machine, in parallel processes."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.core.files import regular
from domainbed_sage.core.plugins import load_installed, load_plugin, loaded_plugins
from domainbed_sage.training import train
from domainbed_sage.training.notes import note_refusal, read_progress
from domainbed_sage.training.ownership import Fenced

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
FRUITLESS_ATTEMPTS = 3
_stop, _running = threading.Event(), threading.Event()


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
    devices: Sequence[str] = (),
    stop: threading.Event | None = None,
) -> Outcome:
    """Execute the runs whose folders below ``machine.output_dir`` have no `done` marker.

    Every process works on one run at a time with an equal share of the processor cores. Ctrl-C, or SIGTERM, saves a
    checkpoint of every active run; the same call later continues them. A process that is killed costs nothing but
    time: its run continues in another one, unless processes are killed three times in a row without finishing any run.

    Args:
        runs: the runs.
        machine: where they run; `output_dir` is the folder of all of them.
        jobs: processes; by default one per two cores, and at least two where there are two cores.
        devices: values of CUDA_VISIBLE_DEVICES, one for each process; `jobs` is then their number.
        stop: what Ctrl-C does, for callers that are not in the main thread.

    A full disk ends the sweep: runs that have not begun are not started.
    """
    missing = [run for run in runs if not regular(machine.output_dir / run.folder_name / "done")]
    before = len(runs) - len(missing)
    workers = _workers(len(runs), len(missing), len(devices) or jobs, devices, stop)
    overview = Overview(machine.output_dir, total=len(runs), done=before, rows=workers.jobs)
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
    """Set what SIGTERM does, and return what it did; signals belong to the main thread, other threads have no say."""
    if threading.current_thread() is threading.main_thread():
        return signal.signal(signal.SIGTERM, handler)
    return handler


def available_cores() -> int:
    """Processor cores that this process may use; in a Slurm job those of its task."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0)))


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
        arguments = (self.threads, loaded_plugins(), devices if self.devices else None)
        return ProcessPoolExecutor(self.jobs, context, initializer=_initialise, initargs=arguments)


def _workers(
    runs: int, missing: int, jobs: int | None, devices: Sequence[str], stop: threading.Event | None
) -> _Workers:
    cores = available_cores()
    jobs = jobs or min(max(cores // 2, min(cores, 2)), max(runs, 1))
    threads = max(cores // jobs, 1)  # whatever is missing: a continued run needs the threads that it began with
    return _Workers(min(jobs, max(missing, 1)), threads, tuple(devices), stop or threading.Event())


def _attempt(
    runs: Sequence[RunConfig], machine: Machine, workers: _Workers, overview: "Overview", failed: dict[str, str]
) -> list[RunConfig]:
    """Work through the runs in a pool, note failures, and return the runs that a dying process left undone."""
    pool = workers.pool()
    left: list[RunConfig] = []
    try:
        futures: dict[Future[None], RunConfig] = {pool.submit(_run_one, run, machine): run for run in runs}
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            if workers.stop.is_set():
                raise KeyboardInterrupt
            for future in finished:
                if future.cancelled():
                    continue
                run, error = futures[future], future.exception()
                if isinstance(error, BrokenProcessPool):
                    left.append(run)
                    continue
                if error is not None:
                    failed[run.folder_name] = str(error)
                if isinstance(error, UserError):
                    note_refusal(machine.output_dir / run.folder_name, error)
                if isinstance(error, NoSpace | Fenced):  # no other run would fare better
                    for other in pending:
                        other.cancel()
                overview.finished(run, error)
            overview.look([futures[f] for f in pending])
    except KeyboardInterrupt:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:  # not the pool, which does not wait when it is shut down a second time
            process.join()
        raise
    pool.shutdown()
    return left


class Overview:
    """A bar for the sweep and one for each active run; on anything but a terminal, one line per finished run."""

    def __init__(self, folder: Path, total: int, done: int, rows: int) -> None:
        self.folder, self.count = folder, done
        self.total = tqdm(total=total, initial=done, desc="runs", unit="run", disable=None, position=0)
        self.rows = [
            tqdm(total=1, disable=None, position=i + 1, leave=False, bar_format="  {desc} |{bar:20}|{postfix}")
            for i in range(rows)
        ]

    def finished(self, run: RunConfig, error: BaseException | None) -> None:
        """Count a finished run, and say so."""
        self.count += 1
        self.total.update()
        verdict = "done" if error is None else f"FAILED: {str(error).splitlines()[0] if str(error) else repr(error)}"
        tqdm.write(f"{self.count:>4}/{self.total.total} {run.folder_name}: {verdict}")

    def look(self, pending: Sequence[RunConfig]) -> None:
        """Show how far the active runs are, from the notes in their folders."""
        if self.total.disable:
            return
        notes = [(run, self._note(run)) for run in pending]
        active = [(run, note) for run, note in notes if {"step", "steps"} <= note.keys()][: len(self.rows)]
        for row, (run, note) in zip(self.rows, active, strict=False):
            row.total, row.n = note["steps"], note["step"]
            row.set_description_str(f"{run.algorithm:<8} {run.dataset} env{run.test_envs} {note['step']:>6.0f}", False)
            row.set_postfix({k: f"{note[k]:.3f}" for k in ("loss", "agreement") if k in note}, refresh=False)
            row.refresh()
        self.total.refresh()

    def close(self) -> None:
        """Leave only the sweep's bar."""
        for row in [*self.rows, self.total]:
            row.close()

    def _note(self, run: RunConfig) -> dict[str, float]:
        folder = self.folder / run.folder_name
        try:
            fresh = time.time() - (folder / "progress.json").stat().st_mtime < 600
        except OSError:
            return {}
        return read_progress(folder) if fresh else {}


def _initialise(threads: int, plugins: Sequence[Path], devices: "multiprocessing.Queue[str] | None") -> None:
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
    torch.set_num_threads(threads)
    multiprocessing.set_start_method("fork", force=True)  # of the loaders; a spawned one imports torch anew each time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends it to all; the parent decides
    signal.signal(signal.SIGTERM, _ask_to_stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    load_installed()
    for plugin in plugins:
        load_plugin(plugin)


def _end_with_parent() -> None:
    """Without its parent a worker would wait for work for ever, and keep its memory and the lock of its run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _ask_to_stop(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    _stop.set()
    if not _running.is_set():
        os._exit(0)


def _run_one(run: RunConfig, machine: Machine) -> None:
    _running.set()
    try:
        train.run(run, replace(machine, output_dir=machine.output_dir / run.folder_name), _stop)
    except UserError:
        raise
    except Exception as error:  # its traceback is in err.txt; it may not survive the way to the parent process
        raise UserError(f"{type(error).__name__}: {error} (see err.txt in its folder)") from None
    finally:
        _running.clear()
        if _stop.is_set():
            os._exit(0)  # nobody waits for the result, and from Python 3.12 on nobody would end this process
