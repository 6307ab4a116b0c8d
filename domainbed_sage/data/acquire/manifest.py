"""Manifests: path, size and sha256 of every image of a dataset, so that two labs can compare what they have.

The file holds the bytes of every name as they are on disk, whatever the locale; with UTF-8 names it is a UTF-8 text.
"""

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from domainbed_sage.core.errors import UserError
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
    paths = sorted(images(root, environments))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = pool.map(lambda path: _entry(root / path), paths)
        return dict(zip(paths, tqdm(hashes, root.name, len(paths), unit="file", disable=None), strict=True))


def _entry(path: Path) -> Entry:
    try:
        return Entry(path.stat().st_size, digest(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Mend the disk or its permissions.") from None


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
        return {name: Entry(int(size), sha256) for name, size, sha256 in rows}
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} should be a manifest with the columns {', '.join(HEADER)}: {error}.") from None


def compare(manifest: Manifest, found: Manifest) -> Differences:
    """What differs between a manifest and the files found."""
    return Differences(
        tuple(sorted(manifest.keys() - found.keys())),
        tuple(sorted(found.keys() - manifest.keys())),
        tuple(sorted(path for path in manifest.keys() & found.keys() if manifest[path] != found[path])),
    )
