"""Disk space: asked for before a big write."""

import shutil
from functools import partial
from pathlib import Path

from domainbed_sage.errors import NoSpace
from domainbed_sage.files import explained as explained_anywhere

explained = partial(explained_anywhere, elsewhere="--data_dir")


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
