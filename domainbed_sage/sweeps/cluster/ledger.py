"""What was submitted for a results folder: `<results>/jobs/<array>/array.json`, one file per array of jobs.

It is written before sbatch is called, and Slurm's job ids are added after it: a launcher that dies in between leaves
an entry whose jobs can be found by their name.
"""

import fcntl
import getpass
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError, shown
from domainbed_sage.core.files import explained, write_atomically
from domainbed_sage.sweeps.cluster.slurm import QueuedJob

log = logging.getLogger(__name__)

JOBS = "jobs"


def _user() -> str:
    """The user's name, or in a container without names the numeric id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@dataclass(frozen=True)
class Array:
    """One array of jobs.

    Attributes:
        name: its unique name in the queue.
        tasks: names of the run folders of each job.
        ids: Slurm's id of each job; empty as long as the launcher does not know them.
        user, host, when: who launched it, where, and when (seconds since 1970).
    """

    name: str
    tasks: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...] = ()
    user: str = field(default_factory=_user)
    host: str = field(default_factory=socket.gethostname)
    when: float = field(default_factory=time.time)

    def jobs(self, queue: Mapping[str, QueuedJob]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Slurm's id of every job, and its runs; ids that the launcher did not note come from the queue."""
        ids = dict(enumerate(self.ids))
        if not ids:
            named = [job for job in queue.values() if job.name == self.name]
            ids = {int(job.job.partition("_")[2] or 0): job.job for job in named}
        for index, job in ids.items():
            yield job, self.tasks[index]


def folder(results: Path, array: Array) -> Path:
    """Where submitit keeps the files of an array."""
    return results / JOBS / array.name


def new_name(sweep: str) -> str:
    """A unique name for an array, without commas, which separate names in squeue."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', sweep)}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def write(results: Path, array: Array) -> None:
    """Record an array."""
    write_atomically(folder(results, array) / "array.json", strict_json.dumps(array))


def forget(results: Path, array: Array) -> None:
    """Remove an array that Slurm refused."""
    shutil.rmtree(folder(results, array), ignore_errors=True)


def read(results: Path) -> list[Array]:
    """All arrays, oldest first.

    Raises:
        UserError: an entry is damaged.
    """
    arrays = []
    for path in (results / JOBS).glob("*/array.json"):
        try:
            text = path.read_bytes()
        except FileNotFoundError:  # refused by Slurm a moment ago, and forgotten
            continue
        try:
            arrays.append(_array(strict_json.loads(text)))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{path} is damaged ({error}). Without it, nobody knows which jobs were submitted. Look for jobs named "
                f"{path.parent.name} in squeue, cancel them, and remove {path.parent}."
            ) from None
    return sorted(arrays, key=lambda array: array.when)


def _array(facts: dict[str, Any]) -> Array:
    """An array from its JSON form; raises whatever a wrong one breaks."""
    tasks = tuple(tuple(runs) for runs in facts.pop("tasks"))
    ids, when = tuple(map(str, facts.pop("ids"))), float(facts.pop("when"))
    array = Array(tasks=tasks, ids=ids, when=when, **facts)
    texts = [array.name, array.user, array.host, *(run for runs in tasks for run in runs)]
    if odd := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"{shown(odd[0])} is not a text")
    if len(ids) not in (0, len(tasks)):
        raise ValueError(f"it has {len(ids)} jobs for {len(tasks)} tasks")
    return array


@contextmanager
def locked(results: Path) -> Iterator[None]:
    """Hold the exclusive right to launch into a results folder; others wait."""
    with explained(results):
        results.mkdir(parents=True, exist_ok=True)
        file = (results / "launch.lock").open("w")
    with file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("Another launch, retry or cancel is at work in %s. Waiting for its end.", results)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"{results} is on a file system without locks ({error.strerror}), where two launches at once could "
                f"submit runs twice. Put the results on another file system."
            ) from None
        yield
