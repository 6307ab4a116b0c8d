"""Trees in the exact layout of each benchmark, made of small real JPEGs of the embedded EmojiStyles drawings."""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from domainbed_sage.data import emoji
from domainbed_sage.data.specs import DatasetSpec, datasets

CLASSES = {name: spec.expected.classes for name, spec in datasets.items() if spec.expected.classes}
CLASSES["DomainNet"] = tuple(f"class_{i:03d}" for i in range(345))


@lru_cache
def drawings() -> np.ndarray:
    """The embedded drawings, uint8 [n, 32, 32, 3]."""
    with np.load(emoji.SHIPPED / "small.npz", allow_pickle=False) as arrays:
        return arrays["images"].reshape(-1, emoji.SMALL_SIZE, emoji.SMALL_SIZE, 3)


@lru_cache(None)
def jpeg(number: int, side: int = 8) -> bytes:
    """One small JPEG; different numbers give different images."""
    image = Image.fromarray(drawings()[number % len(drawings())]).resize((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70, comment=f"image {number}".encode())
    return file.getvalue()


def spread(total: int, classes: Sequence[str]) -> dict[str, int]:
    """A number of images for each class, as even as possible."""
    return {c: total // len(classes) + (i < total % len(classes)) for i, c in enumerate(classes)}


def published(spec: DatasetSpec, variant: str = "") -> dict[str, dict[str, int]]:
    """Images per environment and class: the published ones, or the environment's total spread evenly."""
    environments = spec.expected.environments or ()
    totals = dict(zip(environments, spec.expected.populations[variant], strict=True))
    return {e: dict(spec.expected.class_counts.get(e) or spread(totals[e], CLASSES[spec.name])) for e in environments}


def few(spec: DatasetSpec, per_class: int = 2) -> dict[str, dict[str, int]]:
    """A few images in every class."""
    return {e: dict.fromkeys(CLASSES[spec.name], per_class) for e in spec.expected.environments or ()}


def plant(root: Path, counts: Mapping[str, Mapping[str, int]], subset: str = "", *, same: bool = True) -> Path:
    """Write a tree below `root`.

    Args:
        root: new folder.
        counts: images per environment and class.
        subset: text of SUBSET.txt.
        same: all images of a class are links to one file; otherwise each is an image of its own.
    """
    number = 0
    for environment, classes in counts.items():
        for name, n in classes.items():
            folder = root / environment / name
            folder.mkdir(parents=True)
            for i in range(n):
                path, first = folder / f"pic_{i:05d}.jpg", folder / "pic_00000.jpg"
                if same and i:
                    os.link(first, path)
                else:
                    path.write_bytes(jpeg(number))
                number += 1
    if subset:
        (root / "SUBSET.txt").write_text(subset + "\n")
    return root


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def prefixed(prefix: str, content: Mapping[str, bytes], only: Iterable[str] = ("",)) -> dict[str, bytes]:
    """The files below some of the folders, as an archive would name them."""
    return {f"{prefix}{name}": data for name, data in content.items() if name.startswith(tuple(only))}
