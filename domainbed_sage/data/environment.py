"""The core types of the data: an environment of labelled images, and a dataset of environments."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from domainbed_sage.data.decode import Decoder


class Environment(ABC):
    """The labelled images of one environment (domain), in DomainBed's sample order.

    Attributes:
        name: folder name, e.g. ``art_painting``.
        labels: class index of every sample, int64 [n].
        keys: name of every sample inside the environment, e.g. ``dog/pic_001.jpg`` [n]; for messages and manifests.
    """

    name: str
    labels: np.ndarray
    keys: Sequence[str]

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Decode one sample: RGB, uint8 [3, H, W].

        Raises:
            UserError: the image cannot be decoded; the message names the file.
        """

    def decoded_by(self, decoder: Decoder) -> "Environment":
        """The same environment, with its files decoded by this decoder; itself if it has no files."""
        del decoder
        return self

    def __len__(self) -> int:
        return len(self.labels)


class ArrayEnvironment(Environment):
    """An environment whose decoded images are in memory, uint8 [n, H, W, 3]."""

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray, keys: Sequence[str]) -> None:
        self.name, self.labels, self.keys = name, labels.astype(np.int64), keys
        self._images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def image(self, index: int) -> Tensor:
        """See `Environment.image`."""
        return self._images[index]


@dataclass(frozen=True)
class MultiDomainDataset:
    """Environments that share one list of classes; the label is the index into `classes`.

    Attributes:
        name: as given to ``--dataset``.
        classes: names of the classes.
        environments: in the order of the dataset's table row.
        variant: which population of images this is, if not DomainBed's only one: ``24788`` or ``24330`` for
            TerraIncognita, ``subset: …`` for a declared subset. Belongs in every record and table.
        notes: what else a reader of the results must know about the data, e.g. that duplicates were removed.
        corrupt: images listed as impossible to decode, ``environment/class/file``.
        readable: names of the classes for prompts, where `classes` are codes; empty: `classes` themselves.
    """

    name: str
    classes: tuple[str, ...]
    environments: tuple[Environment, ...]
    variant: str = ""
    notes: tuple[str, ...] = ()
    corrupt: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes as given to a model."""
        return self.readable or self.classes
