"""Who owns a run's folder: a lock against live processes, and a fence against processes that were presumed dead.

The lock is the kernel's (`flock`): it ends with the process, however that ends, and NFSv4 and most parallel file
systems carry it between nodes. It cannot do one thing: when Slurm gives a node up and starts its job again elsewhere,
the old process may still run and hold it. So the file names its owner, and a later start of the *same* Slurm job may
put its own name there. The old one looks at the name before everything it writes, and while it trains; once it is not
its own, it stops and writes nothing more. If it does not let go of the lock within `PATIENCE_S` (a hung node), the
newcomer puts a new lock file in its place.

Guaranteed: of two processes started at the same time, on file systems with locks, one goes on and the other is told who
has the folder. Nearly guaranteed: a ghost writes nothing after its successor began; between its last look and the end
of that write lies less than the time of one write. What it could then still write is a record or checkpoint of the same
deterministic run. On a file system without locks only the fence is left, and a warning says so.
"""

import errno
import fcntl
import logging
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.core.files import explained, explained_reading, regular

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
PATIENCE_S = 120.0
PROBES = 2
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
LONGEST = 1000  # bytes of a lock file
_LINE = re.compile(r"process ([0-9]+) on (\S+)(?: \(job (\S+), start ([0-9]+)\))? \[(\w+)\]")

# A loader process is a fork that outlives a killed parent by some seconds; it must not keep the parent's lock.
_locks: set[IO[bytes]] = set()
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])


class Fenced(Stopped):
    """A later start of this job owns the folder; nothing more was written."""


@dataclass(frozen=True)
class Owner:
    """A process, and the Slurm job that started it; equal only to itself.

    Attributes:
        pid: process id.
        host: its computer.
        job: Slurm's id of the job or array task; empty outside of one.
        restart: how often Slurm has started that job again.
        token: drawn at random.
    """

    pid: int
    host: str
    job: str = ""
    restart: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def this_process(cls, environ: Mapping[str, str] = os.environ) -> "Owner":
        """This process as an owner."""
        job = environ.get("SLURM_JOB_ID", "")
        if "SLURM_ARRAY_JOB_ID" in environ:
            job = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ.get('SLURM_ARRAY_TASK_ID', '0')}"
        return cls(os.getpid(), socket.gethostname(), job, int(environ.get("SLURM_RESTART_COUNT", 0)))

    def __str__(self) -> str:
        of_job = f" (job {self.job}, start {self.restart})" if self.job else ""
        return f"process {self.pid} on {self.host}{of_job}"

    def line(self) -> bytes:
        """The contents of the lock file."""
        return f"{self} [{self.token}]\n".encode()

    def succeeds(self, other: "Owner | None") -> bool:
        """Whether this is a later start of the same Slurm job."""
        return other is not None and bool(self.job) and self.job == other.job and self.restart > other.restart


def read(path: Path) -> Owner | None:
    """The owner that a lock file names, if it names one.

    Raises:
        UserError: the file is there and cannot be read.
    """
    with explained_reading(path):
        try:
            with path.open("rb") as file:
                match = _LINE.match(file.read(LONGEST).decode())
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None
    return Owner(int(match[1]), match[2], match[3] or "", int(match[4] or 0), match[5]) if match else None


class Ownership:
    """Proof that this process owns a folder, as long as `check` does not say otherwise."""

    def __init__(self, path: Path, me: Owner) -> None:
        self.path, self.me = path, me

    def check(self) -> None:
        """Check the name in the lock file.

        Raises:
            Fenced: it is another one.
        """
        owner = read(self.path)
        if owner != self.me:
            raise Fenced(
                f"{self.path.parent} belongs to {owner or 'nobody known'} now; {self.me} stops and writes no more."
            )


@contextmanager
def owned(path: Path, me: Owner | None = None) -> Iterator[Ownership]:
    """Own a folder inside the block.

    Args:
        path: the lock file in it; the folder is made.
        me: by default this process.

    Raises:
        UserError: another process owns it, or it cannot be made.
    """
    me = me or Owner.this_process()
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        regular(path)
        file = _acquire(path, me)
    with file:
        _locks.add(file)
        try:
            yield Ownership(path, me)
        finally:
            _locks.discard(file)


def is_held(path: Path) -> bool:
    """Whether some process has locked this lock file; where that cannot be seen, a warning says so."""
    try:
        if not regular(path):
            return False
        with path.open("rb") as file:
            return not _try_lock(file, fcntl.LOCK_SH)  # NFS needs a file open for writing for the other kind
    except FileNotFoundError:
        return False
    except (OSError, UserError) as error:
        log.warning("It cannot be seen whether %s is locked: %s", path, error)
        return False


def _acquire(path: Path, me: Owner) -> IO[bytes]:
    probes, until = PROBES, math.inf  # deadline for the old owner, once asked
    while True:
        with ExitStack() as open_files:
            file = open_files.enter_context(path.open("ab+", buffering=0))
            if _try_lock(file):
                if not _is_at(file, path):
                    continue  # replaced in the meantime
                if (heir := read(path)) and heir.succeeds(me):  # Slurm never counts back: this is the ghost
                    raise Fenced(f"{path.parent} belongs to {heir}; {me} came too late.")
                _sign(file, me)
                open_files.pop_all()
                return file
            owner = read(path)
            if until == math.inf and me.succeeds(owner):
                log.warning("%s succeeds %s, which still runs; asking it to stop.", me, owner)
                _sign(file, me)
                until = time.monotonic() + PATIENCE_S
        if time.monotonic() > until:
            return _replace(path, me)
        if until == math.inf and probes == 0:
            raise UserError(
                f"{path.parent} is in use by {owner or 'another process'}. Two runs never write to one folder: wait "
                f"for that run to end, or choose another --output_dir."
            )
        probes = max(probes - 1, 0)  # `is_held` holds the lock for a moment
        time.sleep(LOOK_EVERY_S)


def _sign(file: IO[bytes], me: Owner) -> None:
    file.truncate(0)
    file.write(me.line())


def _replace(path: Path, me: Owner) -> IO[bytes]:
    log.warning("%s: its old owner did not let go within %.0f s; going on without it.", path, PATIENCE_S)
    fresh = path.with_name(f"{path.name}.{me.token}.tmp")
    with ExitStack() as open_files:
        file = open_files.enter_context(fresh.open("ab+", buffering=0))
        _try_lock(file)
        _sign(file, me)
        fresh.replace(path)
        open_files.pop_all()
    return file


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: IO[bytes], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("%s: this file system has no locks (%s). Do not start one sweep twice.", file.name, error.strerror)
    return True
