"""Disk space: asked for before a big write, and explained when it runs out all the same."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domainbed_sage.errors import UserError


class NoSpace(UserError):  # noqa: N818 - reads as what it is
    """The disk is full, or too full to begin; no other source of the data would help."""


def readable(size: float) -> str:
    """A number of bytes for people, e.g. ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def require(folder: Path, size: int, what: str) -> None:
    """Check that `size` bytes are free where `folder` is, or will be.

    Raises:
        NoSpace: they are not.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise NoSpace(
            f"{what} needs {readable(size)} in {folder}. Found {readable(free)} free. Free some space, or choose "
            f"another --data_dir. Nothing was written."
        )


@contextmanager
def explained(path: Path, advice: str) -> Iterator[None]:
    """Turn a full disk, or a place that cannot be written to, into a message.

    Raises:
        NoSpace: the disk is full.
        UserError: the place cannot be written to.
    """
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(
            f"Cannot write {error.filename or path}: {error.strerror}. Choose another --data_dir."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise NoSpace(f"No space is left for {path}. {advice}") from error
