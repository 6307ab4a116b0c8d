"""NYU-v2 and Cityscapes as the authors of MTAN published them, which all of Table 2's code reads.

On disk: ``<root>/{train,val}/{image,label,depth,normal}/<i>.npy`` with i = 0, …, N - 1; what is reported as test is
``val``. All files are of one size; images, depth and normals have their channels last. Cityscapes has no normals, its
labels of 7 classes are in ``label_7``, and its depth is inverse: disparity / 65535.

Published sizes: NYU-v2 about 8.5 GB, Cityscapes 651 MB. Neither was at hand when this was written: what is checked is
what the papers' code and descriptions say, and types are therefore taken as they come (floats of any width; labels as
whole numbers of any type).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed_sage.core.errors import UserError, counted, raise_all
from domainbed_sage.core.files import explained_reading
from domainbed_sage.data import prepared
from domainbed_sage.data.multitask.base import TaskData, population
from domainbed_sage.data.multitask.facts import Layout
from domainbed_sage.data.multitask.samples import Sample, Samples, mistakes
from domainbed_sage.data.scan import NOISE

SPLITS = {"train": "train", "test": "val"}  # and their folders
SHOWN = 5  # files of one mistake that are named
HASHED = 4096  # bytes from the middle of every file


class NpySamples(Samples):
    """One split; a sample is read and checked when it is asked for."""

    def __init__(self, folder: Path, layout: Layout, count: int) -> None:
        self._folder, self._layout, self._count = folder, layout, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(index)
        paths = [self._folder / folder / f"{index}.npy" for folder in self._layout.shapes]
        image, *targets = (_opened(path) for path in paths)
        kinds = self._layout.kinds
        forms = [
            _labels(target, path) if kind.word == "segmentation" else _channels_first(target)
            for target, path, kind in zip(targets, paths[1:], kinds.values(), strict=True)
        ]
        sample = _channels_first(image), tuple(forms)
        raise_all(mistakes(sample, kinds), f"sample {index} of {self._folder}")
        return sample


def read(root: Path, layout: Layout) -> TaskData:
    """Read a dataset: the headers of all files at once, their contents when a sample is asked for.

    Its population is a hash of the names, types and shapes of all files and of 4 kB from the middle of each, so that
    copies with other labels, another resizing or another order are told apart without reading everything. A declared
    part of the dataset (``SUBSET.txt``, see `prepared`) may have other numbers of samples.

    Raises:
        UserError: files are missing, surplus, damaged, or of another type or shape; lists all mistakes.
    """
    if not root.is_dir():
        raise UserError(
            f"There is no folder {root}. It should hold {layout.name} in MTAN's layout: "
            f"{{train,val}}/{{{','.join(layout.shapes)}}}/0.npy, 1.npy, …"
        )
    subset = prepared.subset(root)
    found: list[str] = []
    parts: list[bytes] = []
    counts = {split: _count(root / folder, layout.counts[split], subset) for split, folder in SPLITS.items()}
    for split, folder in SPLITS.items():
        for kind, shape in layout.shapes.items():
            place = root / folder / kind
            wrong = _name_mistakes(place, counts[split])
            found += wrong or _header_mistakes(place, counts[split], kind, shape, parts)
    raise_all(found, f"the files of {layout.name}", "" if subset else f"Restore them. {prepared.if_a_part(root)}")
    train, test = (NpySamples(root / SPLITS[split], layout, n) for split, n in counts.items())
    text = population(counts, parts) + (f", subset: {subset}" if subset else "")
    return TaskData(layout.name, layout.kinds, train, test, text, notes=prepared.notes(root))


def _count(folder: Path, published: int, subset: str | None) -> int:
    """Samples that a split should have: the published number, or in a declared part as many as it has images."""
    return published if subset is None else max(1, sum(1 for _ in (folder / "image").glob("*.npy")))


def _name_mistakes(place: Path, count: int) -> list[str]:
    """Files that are missing or surplus; what systems leave behind is passed over."""
    if not place.is_dir():
        return [f"there is no folder {place}; it should hold 0.npy to {count - 1}.npy"]
    found = {path.name for path in place.iterdir()}
    wanted = {f"{i}.npy": i for i in range(count)}
    missing = sorted(wanted.keys() - found, key=wanted.__getitem__)
    surplus = sorted(n for n in found - wanted.keys() if n.endswith(".npy") or not _is_noise(n))
    return [
        f"{place} should hold 0.npy to {count - 1}.npy; {counted(len(names), 'file')} {what}: {_some(names)}"
        for names, what in ((missing, "missing"), (surplus, "too many"))
        if names
    ]


def _is_noise(name: str) -> bool:
    return name.startswith(".") or name.lower() in NOISE


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


def _header_mistakes(place: Path, count: int, kind: str, shape: tuple[int, ...], parts: list[bytes]) -> list[str]:
    """Files of another type or shape, or damaged ones; adds what is hashed of each file to `parts`."""
    odd: dict[str, list[str]] = {}  # what was found: in which files
    for name in (f"{i}.npy" for i in range(count)):
        try:
            array = _opened(place / name)
        except Damaged as error:
            odd.setdefault(error.reason, []).append(name)
            continue
        if array.shape != shape or array.dtype.kind not in ("f" if kind in UNLABELLED else "fiu"):
            odd.setdefault(f"{array.dtype} {list(array.shape)}", []).append(name)
        parts += [f"{place.parent.name}/{kind}/{name} {array.dtype} {array.shape}".encode(), _middle(array)]
    wanted = "floating-point numbers" if kind in UNLABELLED else "whole numbers, of any type"
    return [
        f"{place} should hold arrays of {wanted} {list(shape)}. Found {what} in {counted(len(names), 'file')}: "
        f"{_some(names)}"
        for what, names in odd.items()
    ]


UNLABELLED = ("image", "depth", "normal")  # folders of values that are not class indices


class Damaged(UserError):  # noqa: N818 - reads as what it is
    """A file is no array in NumPy's format, or not all of one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} should be an array in NumPy's format. Found {reason}. Restore it.")
        self.reason = reason


def _opened(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """The array in a file, of which only what is looked at will be read."""
    with explained_reading(path):
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            raise Damaged(path, f"a file that is damaged ({error})") from None


def _middle(array: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    flat = array.reshape(-1, order="A")
    n = HASHED // max(1, flat.itemsize)
    start = max(0, (flat.size - n) // 2)
    return flat[start : start + n].tobytes()


def _channels_first(array: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    return torch.from_numpy(np.array(array.transpose(2, 0, 1), dtype=np.float32, order="C"))


def _labels(array: np.ndarray[Any, np.dtype[Any]], path: Path) -> Tensor:
    whole = np.isfinite(array) & (np.rint(array) == array)
    if not whole.all():
        raise UserError(
            f"{path} should hold whole numbers. Found {', '.join(str(v) for v in np.unique(array[~whole])[:SHOWN])}. "
            "Labels that were resized with interpolation are of no use: resize them to the nearest pixel."
        )
    return torch.from_numpy(array.astype(np.int64))
