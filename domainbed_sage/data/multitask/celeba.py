"""CelebA: 40 attributes of a face, each a task of two classes, from its public layout.

On disk: ``img_align_celeba/000001.jpg``, … (202,599 files of 178 x 218 pixels, about 1.4 GB), ``list_attr_celeba.txt``
and ``list_eval_partition.txt``, all in one folder. Neither was at hand when this was written.

Images are resized to a square with antialiasing, the whole of them, as F-MTL's 64 x 64 pixels; which filter its code's
library used is not reproduced exactly.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import functional as vision

from domainbed_sage.core.errors import UserError, counted, raise_all, shown
from domainbed_sage.core.files import explained_reading
from domainbed_sage.data import prepared
from domainbed_sage.data.decode import Decoder
from domainbed_sage.data.multitask.base import TaskData, population
from domainbed_sage.data.multitask.facts import CELEBA_COUNTS, CELEBA_KINDS, CELEBA_SIZE
from domainbed_sage.data.multitask.samples import Sample, Samples

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
NAMES = tuple(CELEBA_KINDS)
SIDE = CELEBA_SIZE[0]  # pixels
SHOWN = 5


@dataclass(frozen=True)
class Lists:
    """The two lists: file names, attributes (-1 or 1) [n, 40], and the number of each file's split [n]."""

    files: tuple[str, ...]
    attributes: NDArray[np.int8]
    split: NDArray[np.int8]


class Faces(Samples):
    """One split; an image is decoded when it is asked for, and its targets are 1 where the face has the attribute."""

    def __init__(self, folder: Path, files: Sequence[str], attributes: NDArray[np.int8], side: int) -> None:
        self._folder, self._files, self._side = folder, files, side
        self._targets = torch.from_numpy((attributes > 0).astype(np.int64))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        pixels = Decoder()(self._folder / self._files[index])
        image = vision.resize(pixels.float() / 255, [self._side, self._side], antialias=True)
        return image.clamp(0, 1), self._targets[index].unbind()


def load(root: Path, *, side: int = SIDE, counts: Mapping[str, int] = CELEBA_COUNTS) -> TaskData:
    """Read the lists, and check that every file they name is there, and no other.

    The population is a hash of names, attributes and splits; images are not hashed. A declared part of the dataset
    (``SUBSET.txt``, see `prepared`) may have other numbers of images.

    Args:
        root: folder that holds images and lists.
        side: height and width of the images that are given to a model, pixels.
        counts: images of each split.

    Raises:
        UserError: lists or images are missing, surplus, damaged, or disagree; lists all mistakes.
    """
    if side < 1:
        raise UserError(f"CelebA's images should be resized to 1 pixel or more. Found side = {side}.")
    lists, subset = _lists(root), prepared.subset(root)
    found = dict(zip(counts, np.bincount(lists.split, minlength=len(counts)).tolist(), strict=True))
    wanted = counts if subset is None else {split: max(1, n) for split, n in found.items()}
    wrong = [f"{s} should have {wanted[s]:,} images. Found {n:,}" for s, n in found.items() if n != wanted[s]]
    advice = "" if subset else f"Restore them. {prepared.if_a_part(root)}"
    raise_all([*wrong, *_file_mistakes(root / IMAGES, lists.files)], "the files of CelebA", advice)
    files = np.array(lists.files)
    splits = {
        split: Faces(root / IMAGES, files[chosen].tolist(), lists.attributes[chosen], side)
        for number, split in enumerate(counts)
        for chosen in [lists.split == number]
    }
    parts = ["\n".join(lists.files).encode(), lists.attributes.tobytes(), lists.split.tobytes()]
    text = population(found, parts) + (f", subset: {subset}" if subset else "")
    return TaskData(
        "CelebA", CELEBA_KINDS, splits["train"], splits["test"], text, splits["validation"], notes=prepared.notes(root)
    )


def _lists(root: Path) -> Lists:
    """Read both lists; they name the same files in the same order."""
    head, *rows = _words(root / ATTRIBUTES, 3)
    names, *rows = rows
    if tuple(names) != NAMES:
        odd = sorted(set(names) ^ set(NAMES))[:SHOWN]
        raise UserError(
            f"{root / ATTRIBUTES} should name CelebA's {len(NAMES)} attributes on its second line, from {NAMES[0]} to "
            f"{NAMES[-1]}. Found {len(names)}" + (f"; {', '.join(odd)} are in one of the two only." if odd else ".")
        )
    if head != [str(len(rows))]:
        raise UserError(f"{root / ATTRIBUTES} should have {' '.join(head)} files, as it says. Found {len(rows)} lines.")
    attributes = _numbers(root / ATTRIBUTES, rows, len(NAMES), (-1, 1))
    where = _words(root / PARTITION, 1)
    split = _numbers(root / PARTITION, where, 1, (0, 1, 2))[:, 0]
    files = tuple(row[0] for row in rows)
    if files != (others := tuple(row[0] for row in where)):
        unlike = [i for i, (a, b) in enumerate(zip_longest(files, others), 1) if a != b]
        raise UserError(
            f"{root / ATTRIBUTES} and {PARTITION} should name the same files in the same order. Found {len(files):,} "
            f"and {len(others):,}, which differ first in number {unlike[0]:,}."
        )
    name, times = Counter(files).most_common(1)[0]
    if times > 1:
        raise UserError(f"{root / ATTRIBUTES} should name every file once. Found {shown(name)} {times} times.")
    return Lists(files, attributes, split)


def _words(path: Path, at_least: int) -> list[list[str]]:
    """The words of every line that is not empty."""
    if not path.is_file():
        raise UserError(f"There is no file {path}. CelebA is {IMAGES}/, {ATTRIBUTES} and {PARTITION} in one folder.")
    with explained_reading(path):
        lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    words = [line for line in lines if line]
    if len(words) < at_least:
        raise UserError(f"{path} should have {at_least} lines or more. Found {len(words)}. Get it again.")
    return words


def _numbers(path: Path, rows: list[list[str]], columns: int, allowed: tuple[int, ...]) -> NDArray[np.int8]:
    """What follows the file's name on each line."""
    words = {str(value) for value in allowed}
    for row in rows:
        if len(row) != columns + 1 or not words.issuperset(row[1:]):
            raise UserError(
                f"{path} should have a file and {counted(columns, 'number')} on every line, each "
                f"{' or '.join(map(str, allowed))}. Found {shown(' '.join(row))}."
            )
    flat: Any = np.array([int(value) for row in rows for value in row[1:]], np.int8)
    return flat.reshape(-1, columns)


def _file_mistakes(folder: Path, names: Sequence[str]) -> list[str]:
    if not folder.is_dir():
        return [f"there is no folder {folder}"]
    found, wanted = {path.name for path in folder.iterdir() if not path.name.startswith(".")}, set(names)
    return [
        f"{counted(len(odd), 'file')} {what} in {folder}: {', '.join(odd[:SHOWN])}{' …' if len(odd) > SHOWN else ''}"
        for odd, what in ((sorted(wanted - found), "missing"), (sorted(found - wanted), "not in the lists"))
        if odd
    ]
