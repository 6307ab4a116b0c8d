"""Writing files so that a full disk or a killed process leaves nothing half written, and telling files apart."""

import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from domainbed_sage.core.errors import NoSpace, UserError

CONTINUES = (
    "What was recorded before is safe. Free some space and start the same command again: it continues from its last "
    "checkpoint."
)


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its place only when it is complete and on disk; its folder is made.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    temporary = temporary_name(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                flush(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        temporary.replace(path)


def temporary_name(path: Path) -> Path:
    """Where this process prepares a file; two, perhaps on two computers, may write to one folder for a moment."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a whole file or nothing, and return its path.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    with atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def explained(path: Path, advice: str = CONTINUES, elsewhere: str = "folder") -> Iterator[None]:
    """Turn a full disk, or a place that cannot be written to, into a message.

    Args:
        path: what is being written.
        advice: what to do about a full disk.
        elsewhere: what to choose another one of when the place cannot be written to.

    Raises:
        NoSpace: the disk is full.
        UserError: the place cannot be written to.
    """
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        place = error.filename or path
        raise UserError(f"Cannot write {place}: {error.strerror}. Choose another {elsewhere}.") from error
    except (OSError, RuntimeError) as error:  # torch.save hides the OSError behind a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__
        if getattr(cause, "errno", None) not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise NoSpace(f"No space is left for {path}. {advice}") from error


def readable(size: float) -> str:
    """A number of bytes for people, e.g. ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def require_space(folder: Path, size: float, what: str, advice: str) -> None:
    """Check that `size` bytes are free where `folder` is, or will be.

    Raises:
        NoSpace: they are not; names `what` needs them, and the `advice`.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise NoSpace(f"{what} needs {readable(size)} in {folder}. Found {readable(free)} free. {advice}")


def flush(file: IO[Any]) -> None:
    """Bring what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
