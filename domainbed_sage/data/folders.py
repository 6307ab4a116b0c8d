"""Datasets on disk in DomainBed's layout: `<root>/<environment>/<class>/<image>`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as vision

from domainbed_sage.data.environment import Environment, MultiDomainDataset
from domainbed_sage.errors import UserError, raise_all


class DecodedCache:
    """Decoded images kept in memory while they fit a budget, so that none is decoded twice for nothing.

    Args:
        budget_gb: memory for images, GB; 0 keeps none. Every loader worker process has a cache of its own.
    """

    def __init__(self, budget_gb: float) -> None:
        self.free_bytes = int(budget_gb * 1e9)
        self._images: dict[Path, Tensor] = {}

    def read(self, path: Path) -> Tensor:
        """Return the image as RGB, uint8 [3, H, W]."""
        if path in self._images:
            return self._images[path]
        image = decode(path)
        if image.nbytes <= self.free_bytes:
            self._images[path] = image
            self.free_bytes -= image.nbytes
        return image


class FolderEnvironment(Environment):
    """One environment's folder, in the sample order of torchvision's ImageFolder (which is DomainBed's)."""

    def __init__(self, root: Path, cache: DecodedCache) -> None:
        folder = ImageFolder(str(root))
        self.name, self.root, self.classes = root.name, root, folder.classes
        self.labels = np.array(folder.targets, dtype=np.int64)
        self.keys = [str(Path(path).relative_to(root)) for path, _ in folder.samples]
        self._cache = cache

    def image(self, index: int) -> Tensor:
        """See `Environment.image`."""
        return self._cache.read(self.root / self.keys[index])


def decode(path: Path) -> Tensor:
    """Decode an image file to RGB, uint8 [3, H, W].

    Raises:
        UserError: the file is no image, or is damaged.
    """
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(vision.to_pure_tensor(vision.pil_to_tensor(image.convert("RGB")))))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} cannot be decoded as an image ({error}). It is damaged or not an image: "
            f"restore it from the source of the dataset. Nothing is skipped or replaced silently."
        ) from None


def read_folders(
    root: Path,
    name: str,
    environments: Sequence[str] | None = None,
    num_classes: int | None = None,
    cache_gb: float = 1,
) -> MultiDomainDataset:
    """Read a dataset of environment folders, all with the same classes.

    Args:
        root: folder of the environment folders.
        name: name of the dataset.
        environments: the folders that must be there, in order; `None` takes all sub-directories, sorted as strings.
        num_classes: how many class folders there must be.
        cache_gb: memory for decoded images, GB, in each process.

    Raises:
        UserError: the folder is missing, an environment is missing or stray, or the classes differ between
            environments (DomainBed would silently shift labels); lists every mistake.
    """
    if not root.is_dir():
        raise UserError(f"{name} should lie in {root}, which does not exist. Check --data_dir.")
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    expected = list(environments) if environments else found
    mistakes = [f"environment folder {root / e} is missing" for e in expected if e not in found]
    mistakes += [f"{root / e} is not an environment of {name}; move it away" for e in found if e not in expected]
    mistakes += _class_mistakes(root, [e for e in expected if e in found], num_classes)
    raise_all(mistakes, f"the folders of {name}")
    cache = DecodedCache(cache_gb)
    envs = tuple(FolderEnvironment(root / e, cache) for e in expected)
    return MultiDomainDataset(name, tuple(envs[0].classes), envs)


def _class_mistakes(root: Path, environments: Sequence[str], num_classes: int | None) -> list[str]:
    classes = {e: {c.name for c in (root / e).iterdir() if c.is_dir()} for e in environments}
    union = set().union(*classes.values())
    mistakes = [
        f"class folder {root / e / c} is missing, but other environments have it"
        for e in environments
        for c in sorted(union - classes[e])
    ]
    mistakes += [
        f"class folder {root / e / c} holds no image"
        for e in environments
        for c in sorted(classes[e])
        if not any(p.is_file() and not p.name.startswith(".") for p in (root / e / c).rglob("*"))
    ]
    if num_classes is not None and union and len(union) != num_classes:
        mistakes.append(f"{num_classes} classes are expected, found {len(union)}: {', '.join(sorted(union))}")
    return mistakes
