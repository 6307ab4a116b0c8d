"""Resource limits of the machine, told apart: memory, open files, processes, shared memory, temporary files."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from textwrap import shorten

from domainbed_sage.core.errors import UserError

REASON = 160  # characters of the system's own words

_CONTINUES = "The same command continues from the last checkpoint."
_LESS_MEMORY = (
    "Start fewer runs at a time (--jobs, --runs-per-gpu) or fewer loader processes (--num_workers), or give the job "
    "more memory (--mem-gb)."
)


@dataclass(frozen=True)
class Limit:
    """A limit of the machine.

    Attributes:
        signs: regular expression, searched for in an exception's class, errno and message.
        meaning: what was refused.
        advice: what to do.
    """

    signs: str
    meaning: str
    advice: str


GPU_MEMORY = Limit(
    r"OutOfMemoryError|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED",
    "The GPU's memory is full",
    "Take a GPU or MIG slice with more memory, start fewer runs at a time on one GPU (--jobs, --runs-per-gpu), or "
    "choose a smaller batch_size, which makes it another run.",
)
MEMORY = Limit(
    r"MemoryError|ENOMEM|can't allocate memory|Cannot allocate memory",
    "The machine's memory (not the GPU's) is full",
    _LESS_MEMORY,
)
KILLED = Limit(
    r"ended by SIGKILL|is killed by signal: Killed",
    "A loader process was killed from outside, most likely by the kernel because the machine's memory was full",
    _LESS_MEMORY,
)
OPEN_FILES = Limit(
    r"EMFILE|ENFILE|Too many open files|items of ancdata",
    "Too many files are open",
    "Raise the limit in the shell before the start (`ulimit -n 4096`), or start fewer loader processes "
    "(--num_workers).",
)
PROCESSES = Limit(
    r"EAGAIN|can't start new thread",
    "No further process or thread may be started",
    "Start fewer loader processes (--num_workers) or fewer runs at a time (--jobs), or raise the limit (`ulimit -u`; "
    "in a container, its limit of processes).",
)
TEMPORARY = Limit(
    r"AF_UNIX path too long|No usable temporary directory|pymp-",
    "The folder of temporary files, through which loader processes are reached, cannot be used",
    "Let the environment variable TMPDIR name a folder on this machine that has space and a path of fewer than 60 "
    "characters, e.g. `export TMPDIR=/tmp`; or do without loader processes (--num_workers 0).",
)
SHARED_MEMORY = Limit(
    r"shared memory\(shm\)|shared memory object|ended by SIGBUS|is killed by signal: Bus error",
    "/dev/shm, through which loader processes hand over images, is full",
    "Start fewer loader processes (--num_workers; 0 needs no /dev/shm), or give the machine a larger /dev/shm (a "
    "container: `docker run --shm-size 8g`, or --ipc host). The disks are not meant.",
)

# Limits that a step, or any other part of a run, may hit, and those of starting loader processes and receiving from
# them; the first one whose sign is found counts.
STEP = (KILLED, GPU_MEMORY, OPEN_FILES, MEMORY, SHARED_MEMORY)
# A loader process that is alive but closed the connection for handing over a tensor was unable to accept it.
HANDED_OVER = replace(OPEN_FILES, signs=r"EOFError|ConnectionResetError|ConnectionRefusedError|BrokenPipeError")
LOADERS = (
    KILLED,
    OPEN_FILES,
    MEMORY,
    TEMPORARY,
    SHARED_MEMORY,
    replace(SHARED_MEMORY, signs=r"ENOSPC"),
    PROCESSES,
    HANDED_OVER,
)


@contextmanager
def explained(*limits: Limit) -> Iterator[None]:
    """Turn an exception that shows a sign of one of the limits into a message; the first match counts.

    Raises:
        UserError: see `Limit`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        words = _words(error)
        for limit in limits:
            if re.search(limit.signs, words):
                reason = shorten(str(error), REASON).rstrip(". ") or type(error).__name__
                raise UserError(f"{limit.meaning} ({reason}). {limit.advice} {_CONTINUES}") from error
        raise


def is_refusal(error: OSError) -> bool:
    """Whether reading a file failed for lack of memory or open files, and not because of its contents."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _words(error: Exception) -> str:
    name = type(error).__name__
    if not isinstance(error, OSError) or (error.errno == errno.ENOSPC and error.filename):  # a file: a full disk
        return f"{name} {error}"
    return f"{name} {errno.errorcode.get(error.errno or 0, '')} {error}"
