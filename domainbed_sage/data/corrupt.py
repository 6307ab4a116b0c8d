"""Images that cannot be decoded: found on request, listed in a file, and left out where a run asks for it.

A listed image is left out of the splits after they were drawn, so that every other image stays in the half in which
DomainBed puts it; every record names what was left out.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from tqdm import tqdm

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import explained, write_atomically
from domainbed_sage.data.decode import Decoder, Undecodable
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.scan import as_text
from domainbed_sage.data.splits import Split

FILE = "CORRUPT.txt"
SHOWN = 10

Corrupt: TypeAlias = Literal["error", "leave_out"]


def find(root: Path, paths: Sequence[str]) -> list[str]:
    """Decode every image in full, and return those of `paths` (``environment/class/file``) that fail.

    Raises:
        UserError: a file cannot be read, e.g. because of its permissions, which is not the image's fault.
    """
    decode = Decoder()

    def fails(path: str) -> bool:
        try:
            decode(root / path)
        except Undecodable:
            return True
        return False

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = tqdm(pool.map(fails, paths), root.name, len(paths), unit="image", disable=None)
        return [path for path, bad in zip(paths, failed, strict=True) if bad]


def write(root: Path, paths: Sequence[str]) -> None:
    """List the corrupt images in the dataset's folder, as raw bytes of their names; remove the list if there are none.

    Raises:
        UserError: the folder cannot be written to, or a name has a line break in it.
    """
    if odd := [path for path in paths if set("\r\n") & set(path)]:
        raise UserError(f"{FILE} has one name on each line. Rename {str(root / odd[0])!r}, which has a line break.")
    if paths:
        write_atomically(root / FILE, b"".join(os.fsencode(path) + b"\n" for path in paths))
    elif (root / FILE).exists():  # otherwise nothing is written, so that this works on a read-only disk
        with explained(root / FILE):
            (root / FILE).unlink()


def read(root: Path) -> tuple[str, ...]:
    """The listed images; none without a list."""
    path = root / FILE
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return tuple(os.fsdecode(line) for line in lines if line.strip())


def shown(paths: Sequence[str]) -> str:
    """The first few paths, for a message."""
    return ", ".join(paths[:SHOWN]) + (" …" if len(paths) > SHOWN else "")


def apply(
    dataset: MultiDomainDataset, splits: Sequence[Split], corrupt: Corrupt
) -> tuple[MultiDomainDataset, list[Split]]:
    """Leave the listed images out of the splits and say so in the dataset's notes, if that was requested.

    Raises:
        UserError: images are listed and it was not requested; or a listed image is not in the dataset.
    """
    listed = dataset.corrupt
    if not listed:
        return dataset, list(splits)
    if corrupt == "error":
        raise UserError(
            f"{len(listed)} images of {dataset.name} are listed as corrupt in its {FILE}: {shown(listed)}. Restore "
            f"them from the source of the dataset and run `domainbed-sage data check {dataset.name} --images`, or "
            f"leave them out with the hyperparameter corrupt: leave_out (the records will name them)."
        )
    indices = _indices(dataset)
    kept = [
        Split(*(half[~np.isin(half, gone)] for half in (split.in_, split.out)))
        for split, gone in zip(splits, indices, strict=True)
    ]
    note = f"{len(listed)} corrupt images left out: {', '.join(map(as_text, listed))}"
    return replace(dataset, notes=(*dataset.notes, note)), kept


def _indices(dataset: MultiDomainDataset) -> list[list[int]]:
    positions = {
        f"{env.name}/{key}": (e, i) for e, env in enumerate(dataset.environments) for i, key in enumerate(env.keys)
    }
    if unknown := [path for path in dataset.corrupt if path not in positions]:
        raise UserError(
            f"The {FILE} of {dataset.name} lists what the dataset does not hold: {shown(unknown)}. Make the list again "
            f"with `domainbed-sage data check {dataset.name} --images --leave_out`."
        )
    found = [positions[path] for path in dataset.corrupt]
    return [[i for e, i in found if e == env] for env in range(len(dataset.environments))]
