"""Writing files so that a full disk or a killed process leaves nothing half written, and telling files apart.

Operating-system errors while a file is written, or read, are turned into messages in one place: `explained`, or
`explained_reading`.
"""

import errno
import hashlib
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeGuard

from domainbed_sage.core.errors import NoSpace, UserError

CONTINUES = (
    "What was recorded before is safe. Free some space and start the same command again: it continues from its last "
    "checkpoint."
)
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSALS = (  # what to do about some errors; about all others: choose another place
    ({errno.EMFILE, errno.ENFILE}, "Raise the limit of open files (ulimit -n), or use fewer loader processes."),
    ({errno.ENAMETOOLONG}, "Choose a shorter name."),
    ({errno.ELOOP}, "Links lead to each other there: remove one of them."),
    ({errno.ENOENT}, "A folder on the way to it was removed: start the same command again."),
    (
        {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT, errno.EHOSTDOWN},
        "The disk, or the way to its server, is in trouble: have it looked at, then start the same command again.",
    ),
)
FOREIGN = {errno.EACCES, errno.EPERM, errno.EROFS}.union(*(codes for codes, _ in REFUSALS)) - {errno.ENOENT}
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears at its path only when it is complete and on disk; its folder is created.

    Raises:
        UserError: the disk is full, or the file cannot be written; see `explained`.
    """
    temporary = temporary_name(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                flush(file)
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
                temporary.unlink(missing_ok=True)
            raise
        temporary.replace(path)


def temporary_name(path: Path) -> Path:
    """This process's temporary path for a file; two processes, even on two computers, may briefly share a folder."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a whole file or nothing, and return its path.

    Raises:
        UserError: the disk is full, or the file cannot be written; see `explained`.
    """
    with atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def explained(path: Path, advice: str = CONTINUES, elsewhere: str = "folder") -> Iterator[None]:
    """Turn operating-system errors while something is written into a message: what, where, what to do.

    Connection errors have nothing to do with files, and pass through.

    Args:
        path: what is being written.
        advice: what to do about a full disk.
        elsewhere: what the user should choose another of, if the place cannot be written to.

    Raises:
        NoSpace: the disk, the user's quota, or the largest size of a file is used up.
        UserError: the place cannot be written to.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save hides the OSError behind a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__
        if not _is_of_files(cause):
            raise
        if cause.errno in FULL:
            raise NoSpace(f"No space is left for {path}. {advice} (Found: {cause.strerror}.)") from error
        raise UserError(_refused("write", cause, path, f"Choose another {elsewhere}.")) from error


@contextmanager
def explained_reading(path: Path) -> Iterator[None]:
    """Turn operating-system errors while something is read into a message: what, where, what to do.

    Raises:
        UserError: it cannot be read.
    """
    try:
        yield
    except OSError as error:
        if not _is_of_files(error):
            raise
        raise UserError(_refused("read", error, path, "Make it readable, or move it away.")) from error


def refusal(error: OSError) -> str:
    """What to say of an error that was not expected where it arose; empty where it may be a fault of this program.

    Any look at a path can fail because its name is too long, or a folder on the way cannot be entered.
    """
    if error.errno not in FOREIGN or not error.filename:
        return ""
    return _refused("use", error, Path(os.fsdecode(error.filename)), "Make it accessible, or choose another place.")


def _is_of_files(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether the error is the operating system's, with a known errno, and not a connection's."""
    return isinstance(error, OSError) and error.errno in errno.errorcode and not isinstance(error, ConnectionError)


def _refused(what: str, error: OSError, path: Path, otherwise: str) -> str:
    advice = next((text for codes, text in REFUSALS if error.errno in codes), otherwise)
    place = error.filename if error.filename not in (None, str(temporary_name(path))) else path
    return f"Cannot {what} {place}: {error.strerror}. {advice}"


def regular(path: Path) -> bool:
    """Whether a regular file exists, perhaps through a link.

    Raises:
        UserError: something else is in its place: a folder, a pipe, a link to nothing.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not path.is_symlink():
            return False
        found = "a link to nothing"
    except OSError as error:
        raise UserError(_refused("look at", error, path, "Make its folder readable.")) from error
    else:
        if stat.S_ISREG(mode):
            return True
        found = KINDS.get(stat.S_IFMT(mode), "a device")
    raise UserError(f"{path} should be a file. Found {found}. Move it away, and start the same command again.")


def expanded(path: Path, instead: str) -> Path:
    """The path with its leading ``~`` replaced by the user's home.

    Args:
        path: any path.
        instead: what to do where there is no home, e.g. "set DOMAINBED_WEIGHTS_DIR".

    Raises:
        UserError: the home is unknown: HOME is not set, and the system has no entry for the user; or no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        if user := path.parts[0].removeprefix("~"):
            raise UserError(f"{path} cannot be found: there is no user {user!r}. Give the path without ~.") from error
        raise UserError(
            f"{path} cannot be found: HOME is not set, and the system does not know the home of user {os.getuid()}. "
            f"Set HOME to a folder, or {instead}."
        ) from error


def readable(size: float) -> str:
    """A number of bytes, human-readable, e.g. ``1.5 GB``."""
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
    """Flush what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
