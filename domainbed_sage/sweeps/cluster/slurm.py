"""Calls to Slurm: the queue, the accounting of ended jobs, and the limits of arrays. No call waits forever."""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from domainbed_sage.core.errors import UserError

log = logging.getLogger(__name__)

WAIT_S = 60.0
SQUEUE = ("squeue", "--all", "--noheader", "--array", "--format=%i|%T|%j|%R")
FILTERS = ("SQUEUE_", "SACCT_", "SCANCEL_")  # a user's defaults must not hide jobs
OF_A_JOB = ("SLURM", "SBATCH_", "SALLOC_", "SRUN_", "PMI")  # what a job leaves in the environment of its shell
OF_THE_CLUSTER = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SBATCH_CLUSTERS", "SLURM_JWT"}
RUNNING = {"RUNNING", "COMPLETING", "STOPPED", "SUSPENDED", "SIGNALING", "STAGE_OUT"}
NAMES_PER_CALL = 200
DEFAULT_MAX_ARRAY = 1000


@dataclass(frozen=True)
class QueuedJob:
    """One job, or task of an array, in the queue.

    Attributes:
        job: its id, e.g. ``1234_7``.
        state: Slurm's name of it, e.g. ``PENDING``.
        name: the job's name.
        reason: why it waits, or where it runs.
    """

    job: str
    state: str
    name: str
    reason: str

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state in RUNNING


def call(*words: str) -> str:
    """Call one of Slurm's commands and return what it prints.

    Raises:
        UserError: there is no such command, it fails, or it does not answer.
    """
    if shutil.which(words[0]) is None:
        raise UserError(f"There is no command {words[0]}: this is not a machine of a Slurm cluster.")
    try:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(FILTERS)}
        done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, check=False, env=environ)
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} has not answered within {WAIT_S:.0f} s. Is Slurm's controller up?") from None
    if done.returncode:
        raise UserError(f"{' '.join(words[:3])} … failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@contextmanager
def outside_of_jobs(kept: Collection[str] = ()) -> Iterator[None]:
    """Hide the variables of the surrounding job, and the user's defaults except `kept`, inside the block.

    For sbatch, variables win over the settings in a script, and the new job inherits them: the time limit, the memory
    and the processor binding of the interactive job from which a sweep is launched would be those of its jobs.
    """
    names = {name for name in os.environ if name.startswith(OF_A_JOB)} - OF_THE_CLUSTER - set(kept)
    removed = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(removed)


def queue(names: Iterable[str]) -> dict[str, QueuedJob]:
    """The jobs of these names that are in the queue, of all users, by id.

    Raises:
        UserError: see `call`.
    """
    found: dict[str, QueuedJob] = {}
    wanted = sorted(set(names))
    for start in range(0, len(wanted), NAMES_PER_CALL):
        some = ",".join(wanted[start : start + NAMES_PER_CALL])
        for line in call(*SQUEUE, f"--name={some}").splitlines():
            job, state, name, reason = line.split("|", 3)
            found[job] = QueuedJob(job, state, name, reason)
    return found


def accounts(jobs: Sequence[str]) -> dict[str, str]:
    """Final states of ended jobs, in Slurm's words, e.g. ``OUT_OF_MEMORY``; empty without accounting."""
    if not jobs:
        return {}
    arrays = ",".join(sorted({job.split("_")[0] for job in jobs}))
    try:
        text = call("sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State", f"--jobs={arrays}")
    except UserError as error:
        log.info("%s", error)
        return {}
    states = dict(line.split("|", 1) for line in text.splitlines() if "|" in line)
    return {job: state.split()[0] for job, state in states.items() if state}


def max_array_size() -> int:
    """The largest number of jobs that an array may have here."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"))
    return max(int(match[1]) - 1, 1) if match else DEFAULT_MAX_ARRAY


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; running ones save a checkpoint.

    Raises:
        UserError: see `call`.
    """
    for start in range(0, len(jobs), NAMES_PER_CALL):
        call("scancel", *jobs[start : start + NAMES_PER_CALL])
