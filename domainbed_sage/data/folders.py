"""Datasets on disk in DomainBed's layout: `<root>/<environment>/<class>/<image>`."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torchvision.datasets import ImageFolder

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.data import corrupt, prepared, resized
from domainbed_sage.data.decode import DecodedCache, Decoder
from domainbed_sage.data.environment import Environment, MultiDomainDataset
from domainbed_sage.data.layout import Expected, folder_mistakes, population


class FolderEnvironment(Environment):
    """One environment's folder, in the sample order of torchvision's ImageFolder (which is DomainBed's)."""

    def __init__(self, root: Path, cache: DecodedCache) -> None:
        folder = ImageFolder(str(root))
        self.name, self.root, self.classes = root.name, root, folder.classes
        self.labels = np.array(folder.targets, dtype=np.int64)
        self.keys = [str(Path(path).relative_to(root)) for path, _ in folder.samples]
        self._cache, self._decoder = cache, Decoder()
        self._stored: resized.ResizedImages | None = None

    def image(self, index: int) -> Tensor:
        """See `Environment.image`."""
        if self._stored is not None:
            return self._stored.read(index)
        return self._cache.read(self.root / self.keys[index], self._decoder)

    def decoded_by(self, decoder: Decoder) -> "FolderEnvironment":
        """See `Environment.decoded_by`; resized images are read from where `data cache` stored them, if it did."""
        other = copy.copy(self)
        other._decoder = decoder
        if decoder.mode == "resized":
            other._stored = resized.find(self.root.parent, decoder.side, self.name, self.keys)
        return other


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
    return MultiDomainDataset(
        name, tuple(envs[0].classes), envs, variant, prepared.notes(root), corrupt=corrupt.read(root)
    )


def _hidden_images(environment: FolderEnvironment) -> list[str]:
    return [
        f"{environment.root / key} is hidden, and DomainBed would read it as an image; remove it"
        for key in environment.keys
        if any(part.startswith(".") for part in Path(key).parts)
    ]
