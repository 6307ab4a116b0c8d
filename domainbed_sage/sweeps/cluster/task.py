"""What a Slurm job does: its runs, until they are done or Slurm wants the node back."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import submitit
import torch
from submitit.helpers import DelayedSubmission

from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.plugins import load_plugin
from domainbed_sage.data import own
from domainbed_sage.data.specs import DatasetSpec
from domainbed_sage.sweeps.cluster.site import require_free
from domainbed_sage.sweeps.local import Outcome, run_missing
from domainbed_sage.training.notes import failed_in, note_refusal
from domainbed_sage.training.ownership import Owner

LINGER_S = 600.0


@dataclass
class Task:
    """The runs of one job; submitit pickles it, calls it on the node, and asks it for a checkpoint.

    Time limit and preemption: Slurm sends USR2, submitit calls `checkpoint`, the runs save their state, the job is
    queued again and continues. Without USR2 (``scontrol requeue``, a cluster that only terminates) TERM comes: the runs
    save their state, and the job waits for its end without taking a step; whether it starts again is Slurm's decision.
    Without any signal the checkpoints of `save_every_s` are there.

    Attributes:
        runs: the runs of this job.
        machine: where and how they run; its device counts only where `device_given`.
        device_given: whether the user named a device; if not, it is the GPU that Slurm gives.
        at_once: runs at the same time.
        wants_gpu: whether the job asked for a GPU, and must not run without.
        min_free_gb: space that must be free, GB.
        grace_s: seconds from Slurm's signal within which the state must be saved; then the job is queued again with
            the checkpoints that exist.
        plugins: files to load first.
        folders: folders of images to know as datasets.
    """

    runs: list[RunConfig]
    machine: Machine
    device_given: bool = False
    at_once: int = 1
    wants_gpu: bool = False
    min_free_gb: float = 0.0
    grace_s: float = 60.0
    plugins: list[Path] = field(default_factory=list)
    folders: tuple[DatasetSpec, ...] = ()

    def __call__(self) -> str:
        """Execute the runs that are not done; returns a summary.

        Raises:
            UserError: runs failed, the disk is full, or there is no GPU.
        """
        _remove_torn_checkpoint()
        _start_resource_tracker()
        try:
            machine = self._prepared()
        except UserError as error:
            for run in self.runs:
                note_refusal(self.machine.output_dir / run.folder_name, error)
            raise
        outcome = self._execute(machine)
        if outcome.interrupted:
            _await_end()
        if outcome.failed:
            reasons = "\n".join(f"{name}: {reason}" for name, reason in outcome.failed.items())
            raise UserError(f"{len(outcome.failed)} of {len(self.runs)} runs failed:\n{reasons}")
        return f"{outcome.done} runs done, {outcome.before} were done before"

    def checkpoint(self) -> DelayedSubmission:
        """Save the state of the active runs, and return what the job's next start should do: the same."""
        _interrupt(self.grace_s)
        return DelayedSubmission(replace(self))

    def _prepared(self) -> Machine:
        for plugin in self.plugins:
            load_plugin(plugin)
        own.adopt(self.folders)
        require_free(self.machine.output_dir, self.min_free_gb, "This job")
        return self.machine if self.device_given else replace(self.machine, device=self._device())

    def _device(self) -> torch.device:
        if torch.cuda.is_available():
            return torch.device("cuda")
        if self.wants_gpu:
            raise UserError(
                f"This job asked Slurm for a GPU, and PyTorch finds none (CUDA_VISIBLE_DEVICES="
                f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}). Check the driver and the PyTorch build on this "
                f"node, or launch with --device cpu."
            )
        return torch.device("cpu")

    def _execute(self, machine: Machine) -> Outcome:
        """Execute the runs in a second thread: a signal is handled in the first one, which then waits for it."""
        outcomes: list[Outcome] = []
        job_id = Owner.this_process().job
        runs = [run for run in self.runs if not failed_in(machine.output_dir / run.folder_name, job_id)]
        job = _Job(lambda: outcomes.append(run_missing(runs, machine, self.at_once, stop=job.stop)))
        _running.append(job)
        previous = signal.signal(signal.SIGTERM, lambda *_: job.stop.set())
        try:
            job.start()
            while job.is_alive():
                job.join(1.0)
        finally:
            signal.signal(signal.SIGTERM, previous)
            _running.remove(job)
        if job.error is not None:
            raise job.error
        return outcomes[0]


class _Job(threading.Thread):
    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="runs", daemon=True)
        self.work, self.stop = work, threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.error = error


_running: list[_Job] = []


def _interrupt(grace_s: float) -> None:
    for job in _running:
        job.stop.set()
        job.join(grace_s)


def _await_end() -> None:
    """Wait for Slurm to end this job. Ending by itself would make it a failed job, which is not started again."""
    time.sleep(LINGER_S)
    raise UserError(
        f"This job was asked to end, saved the state of its runs, and still runs after {LINGER_S / 60:.0f} minutes. "
        f"Launch the sweep again to continue them."
    )


def _start_resource_tracker() -> None:
    """Start multiprocessing's helper process with USR2 ignored: Slurm sends it to all, and it would kill the helper."""
    previous = signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a process inherits ignored signals, but no handlers
    try:
        resource_tracker.ensure_running()
    finally:
        signal.signal(signal.SIGUSR2, previous)


def _remove_torn_checkpoint() -> None:
    """Remove the file left by a job killed while submitit wrote its pickle: it would stop the next checkpoint."""
    with suppress(RuntimeError, KeyError, FileNotFoundError):
        pickle = submitit.JobEnvironment().paths.submitted_pickle
        pickle.with_name(pickle.name + ".save_tmp").unlink()
