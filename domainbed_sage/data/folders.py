"""Datasets on disk in DomainBed's layout: `<root>/<environment>/<class>/<image>`."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.data import classnames, corrupt, prepared, resized
from domainbed_sage.data.decode import DecodedCache, Decoder
from domainbed_sage.data.environment import Environment, MultiDomainDataset
from domainbed_sage.data.layout import Expected, folder_mistakes, population, published
from domainbed_sage.data.scan import as_text, scan, two_forms

log = logging.getLogger(__name__)


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
    """Read a dataset of environment folders, all with the same classes; small files beside them describe it further.

    These are ``SUBSET.txt``, ``PREPARED.json``, ``CORRUPT.txt`` and ``CLASSES.json``: see `prepared`, `corrupt` and
    `classnames`.

    Args:
        root: folder of the environment folders.
        name: name of the dataset.
        environments: the folders that must be there, in order; `None` takes all sub-directories, sorted as strings.
        num_classes: how many class folders there must be.
        cache_gb: memory for decoded images, GB, in each process.
        expected: all that is known about the folder, in place of `environments` and `num_classes`.

    Raises:
        UserError: the folder is missing, an environment is missing or stray, the classes differ between environments
            (DomainBed would silently shift labels), folders or images are reached twice through links, images would be
            skipped because of their names, or the numbers of images match no known population; lists every mistake.
    """
    if not root.is_dir():
        raise UserError(f"{name} should be in {root}, which does not exist. Check --data_dir.")
    expected = expected or Expected(None if environments is None else tuple(environments), num_classes)
    try:
        return _read(root, name, expected, DecodedCache(cache_gb))
    except OSError as error:
        raise UserError(
            f"{error.filename or root} cannot be read ({error.strerror or error}). Repair the disk or its permissions."
        ) from None


def _read(root: Path, name: str, expected: Expected, cache: DecodedCache) -> MultiDomainDataset:
    names, mistakes = folder_mistakes(root, name, expected)
    found = scan(root, names)
    mistakes += [mistake for contents in found.values() for mistake in contents.mistakes]
    mistakes += two_forms([*names, *(path.name for path in root.iterdir())])
    mistakes += two_forms([*expected.classes, *(c for contents in found.values() for c in contents.images)])
    counts = {e: contents.images for e, contents in found.items()}
    if mistakes or published(counts, expected) is None:  # otherwise all that DomainBed reads is there
        mistakes += _unread([path for contents in found.values() for path in contents.unread])
    raise_all(mistakes, f"the folders of {name}")
    if others := [str(path) for contents in found.values() for path in contents.others]:
        log.warning("Files of %s that are no images are passed over: %s", name, corrupt.shown(others))
    variant = population(root, name, counts, expected)
    envs = tuple(FolderEnvironment(root / e, cache) for e in names)
    classes = tuple(as_text(c) for c in envs[0].classes)
    readable, note = classnames.read(root, classes)
    notes = (*prepared.notes(root), *note)
    return MultiDomainDataset(name, classes, envs, variant, notes, corrupt.read(root), readable)


def _unread(paths: Sequence[Path]) -> list[str]:
    if not paths:
        return []
    return [
        f"{len(paths)} images would be passed over, as in DomainBed, because their names do not end in "
        f"{', '.join(IMG_EXTENSIONS)}: {corrupt.shown([str(path) for path in paths])}; rename JPEGs (.jfif too) to "
        f".jpg, convert others to .png, or move them away"
    ]
