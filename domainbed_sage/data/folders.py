"""Datasets on disk in DomainBed's layout: `<root>/<environment>/<class>/<image>`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import functional as vision

from domainbed_sage.data import prepared
from domainbed_sage.data.environment import Environment, MultiDomainDataset
from domainbed_sage.data.layout import Expected, folder_mistakes, population
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
            return vision.pil_to_tensor(image.convert("RGB"))
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
    expected: Expected | None = None,
) -> MultiDomainDataset:
    """Read a dataset of environment folders, all with the same classes.

    Args:
        root: folder of the environment folders.
        name: name of the dataset.
        environments: the folders that must be there, in order; `None` takes all sub-directories, sorted as strings.
        num_classes: how many class folders there must be.
        cache_gb: memory for decoded images, GB, in each process.
        expected: all that is known of the folder, in place of `environments` and `num_classes`.

    Raises:
        UserError: the folder is missing, an environment is missing or stray, the classes differ between environments
            (DomainBed would silently shift labels), or the numbers of images are of no known population; lists every
            mistake.
    """
    if not root.is_dir():
        raise UserError(f"{name} should lie in {root}, which does not exist. Check --data_dir.")
    expected = expected or Expected(None if environments is None else tuple(environments), num_classes)
    names, mistakes = folder_mistakes(root, name, expected)
    raise_all(mistakes, f"the folders of {name}")
    cache = DecodedCache(cache_gb)
    envs = tuple(FolderEnvironment(root / e, cache) for e in names)
    raise_all([line for env in envs for line in _hidden_images(env)], f"the files of {name}")
    counts = {env.name: dict(zip(env.classes, np.bincount(env.labels).tolist(), strict=True)) for env in envs}
    variant = population(root, name, counts, expected)
    return MultiDomainDataset(name, tuple(envs[0].classes), envs, variant, prepared.notes(root))


def _hidden_images(environment: FolderEnvironment) -> list[str]:
    return [
        f"{environment.root / key} is hidden, and DomainBed would read it as an image; remove it"
        for key in environment.keys
        if any(part.startswith(".") for part in Path(key).parts)
    ]
