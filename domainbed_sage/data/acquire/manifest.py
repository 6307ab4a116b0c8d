"""Manifests: path, size and sha256 of every image of a dataset, so that two labs can compare what they have.

The file holds the bytes of every name as they are on disk, whatever the locale; with UTF-8 names it is a UTF-8 text.
"""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from tqdm import tqdm

from domainbed_sage.core.errors import UserError, shown
from domainbed_sage.core.files import digest, write_atomically
from domainbed_sage.data.scan import images

FILE = "MANIFEST.csv"
HEADER = ["path", "size", "sha256"]
SHOWN = 10


@dataclass(frozen=True)
class Entry:
    """Size in bytes and sha256 of one file."""

    size: int
    sha256: str


Manifest: TypeAlias = dict[str, Entry]  # environment/class/file -> Entry


@dataclass(frozen=True)
class Differences:
    """Paths that only the manifest has, that only the folder has, and that both have with different contents."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    changed: tuple[str, ...]

    def mistakes(self, root: Path) -> list[str]:
        """Lines for a message: the first few paths of each kind, and how many there are."""
        return [
            f"{len(paths)} {'file' if len(paths) == 1 else 'files'} {what}: "
            + ", ".join(str(root / path) for path in paths[:SHOWN])
            + (" …" if len(paths) > SHOWN else "")
            for what, paths in (
                ("missing", self.missing),
                ("not in the manifest", self.extra),
                ("with another size or sha256 than in the manifest", self.changed),
            )
            if paths
        ]


def build(root: Path, environments: Sequence[str]) -> Manifest:
    """Hash every image below `root` that would be read, with one thread per processor.

    Raises:
        UserError: a file cannot be read.
    """
    return of_files(root, sorted(images(root, environments)))


def of_files(root: Path, paths: Sequence[str]) -> Manifest:
    """Hash these files below `root`.

    Raises:
        UserError: a file cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = pool.map(lambda path: _entry(root / path), paths)
        return dict(zip(paths, tqdm(hashes, root.name, len(paths), unit="file", disable=None), strict=True))


def _entry(path: Path) -> Entry:
    try:
        return Entry(path.stat().st_size, digest(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Repair the disk or its permissions.") from None


def render(manifest: Manifest) -> str:
    """The manifest as CSV, one file per line, sorted by path: equal data gives equal text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows([path, entry.size, entry.sha256] for path, entry in sorted(manifest.items()))
    return text.getvalue()


def fingerprint(manifest: Manifest) -> str:
    """The sha256 of the manifest's text: equal for equal data, short enough to quote."""
    return hashlib.sha256(os.fsencode(render(manifest))).hexdigest()


def write(manifest: Manifest, path: Path) -> None:
    """Write the manifest, whole or not at all."""
    write_atomically(path, os.fsencode(render(manifest)))


def read(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UserError: the file is missing, or is not a manifest.
    """
    if not path.is_file():
        raise UserError(
            f"{path} should be a manifest. There is no such file: `domainbed-sage data manifest` makes one."
        )
    try:
        header, *rows = csv.reader(io.StringIO(os.fsdecode(path.read_bytes()), newline=""))
        if header != HEADER:
            raise ValueError(f"its first line is {header}")
        entries = [(name, _checked(name, size, sha256)) for name, size, sha256 in rows]
        if twice := [name for name, times in Counter(name for name, _ in entries).items() if times > 1]:
            raise ValueError(f"it has {shown(twice[0])} more than once")
        return dict(entries)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} should be a manifest with the columns {', '.join(HEADER)}: {error}.") from None


def _checked(path: str, size: str, sha256: str) -> Entry:
    parts = PurePosixPath(path).parts
    if len(parts) < 3 or parts[0] == "/" or ".." in parts or str(PurePosixPath(path)) != path:
        raise ValueError(f"{shown(path)} is not environment/class/file")
    if not re.fullmatch("[0-9]{1,18}", size):
        raise ValueError(f"{shown(size)}, of {shown(path)}, is not a size in bytes")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"{shown(sha256)}, of {shown(path)}, is not a sha256 of 64 hexadecimal digits")
    return Entry(int(size), sha256)


def compare(manifest: Manifest, found: Manifest) -> Differences:
    """What differs between a manifest and the files found."""
    return Differences(
        tuple(sorted(manifest.keys() - found.keys())),
        tuple(sorted(found.keys() - manifest.keys())),
        tuple(sorted(path for path in manifest.keys() & found.keys() if manifest[path] != found[path])),
    )
