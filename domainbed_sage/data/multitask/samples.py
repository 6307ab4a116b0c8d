"""Samples of several tasks: the form that every reader gives them, and what may be in it."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.data.multitask.base import Kind, TaskData, Word

Sample: TypeAlias = tuple[Tensor, tuple[Tensor, ...]]

UNIT = 0.01  # a normal counts as a unit vector if its length is 1 up to this


class Samples(Dataset[Sample]):
    """Images with one target for every task, see `TaskData`, by index."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...


class ArraySamples(Samples):
    """Samples that are in memory.

    Args:
        images: float32 [n, 3, H, W] in [0, 1]; or uint8, of which 255 means 1; or one channel, which is repeated.
        targets: for every task its targets [n, ...].
    """

    def __init__(self, images: Tensor, targets: Sequence[Tensor]) -> None:
        if any(len(target) != len(images) for target in targets):
            sizes = [len(target) for target in targets]
            raise ValueError(f"Every image needs its targets. Found {len(images)} images and {sizes} targets.")
        self._images, self._targets = images, tuple(targets)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        image = self._images[index]
        image = image if image.is_floating_point() else image / 255
        return image.expand(3, -1, -1), tuple(target[index] for target in self._targets)


def mistakes(sample: Sample, kinds: Mapping[str, Kind]) -> list[str]:
    """What is wrong with a sample: types, shapes, values; what was found, and what is allowed.

    Normals may be shorter than 1 at some pixels: interpolation, when images are resized, makes them so at edges. At
    half of the valid pixels or more they are unit vectors, nowhere longer.
    """
    image, targets = sample
    found = _shape_mistakes("image", image, torch.float32, (3, None, None))
    if not found and not (image.min() >= 0 and image.max() <= 1):  # false for NaN as well
        found.append(f"the image should have values in [0, 1]. Found {_range(image)}")
    if len(targets) != len(kinds):
        return [*found, f"there should be one target for each of {', '.join(kinds)}. Found {len(targets)}"]
    height, width = image.shape[-2:]
    for (task, kind), target in zip(kinds.items(), targets, strict=True):
        dtype, lead = FORMS[kind.word]
        shape = (*lead, height, width) if kind.word != "classification" else ()
        wrong = _shape_mistakes(task, target, dtype, shape)
        found += wrong or [f"{task}: {text}" for text in VALUES[kind.word](target, kind)]
    return found


def _shape_mistakes(what: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]) -> list[str]:
    fits = len(shape) == tensor.ndim and all(n in (None, m) for n, m in zip(shape, tensor.shape, strict=True))
    if fits and tensor.dtype == dtype:
        return []
    wanted = ", ".join("any" if n is None else str(n) for n in shape)
    return [f"{what} should be {dtype} [{wanted}]. Found {tensor.dtype} {list(tensor.shape)}"]


def _class_mistakes(target: Tensor, kind: Kind) -> list[str]:
    least = -1 if kind.word == "segmentation" else 0
    wrong = target[(target < least) | (target >= kind.channels)]
    if not len(wrong.unique()):
        return []
    ignored = ", or -1 where they are ignored" if least else ""
    shown = ", ".join(str(label) for label in wrong.unique()[:5].tolist())
    return [f"labels should be from 0 to {kind.channels - 1}{ignored}. Found {shown}"]


def _depth_mistakes(target: Tensor, kind: Kind) -> list[str]:
    if target.min() >= 0 and target.max() <= kind.largest and target.isfinite().all():
        return []
    return [f"depths should be finite, from 0 (invalid) to {kind.largest:g}. Found {_range(target)}"]


def _normal_mistakes(target: Tensor, kind: Kind) -> list[str]:
    del kind
    length = target.square().sum(0).sqrt()
    if not length.isfinite().all():
        return [f"normals should be finite. Found {_range(target)}"]
    length = length[length > 0]
    unit = (length - 1).abs() <= UNIT
    if not len(length) or (length.max() <= 1 + UNIT and unit.float().mean() >= 0.5):
        return []
    return [
        f"normals should have length 1, or be (0, 0, 0) where they are invalid. Found lengths {_range(length)}, and "
        f"length 1 at {100 * unit.float().mean():.0f}% of the valid pixels"
    ]


def _range(tensor: Tensor) -> str:
    if number := int((~tensor.isfinite()).sum()):
        return f"{number} values that are NaN or infinite"
    return f"{tensor.min():.4g} to {tensor.max():.4g}"


FORMS: dict[Word, tuple[torch.dtype, tuple[int, ...]]] = {  # of a target, before its height and width
    "segmentation": (torch.int64, ()),
    "depth": (torch.float32, (1,)),
    "normal": (torch.float32, (3,)),
    "classification": (torch.int64, ()),
}
VALUES: dict[Word, Callable[[Tensor, Kind], list[str]]] = {
    "segmentation": _class_mistakes,
    "depth": _depth_mistakes,
    "normal": _normal_mistakes,
    "classification": _class_mistakes,
}


def check(data: TaskData, progress: Callable[[Iterable[int]], Iterable[int]] = tqdm) -> None:
    """Read every sample of a dataset, and check its types, shapes and values.

    Args:
        data: any dataset.
        progress: wraps the numbers of all samples.

    Raises:
        UserError: samples cannot be read, or are not as they should be; lists all mistakes.
    """
    places = [(split, samples, i) for split, samples in data.splits.items() for i in range(len(samples))]
    found: list[str] = []
    for number in progress(range(len(places))):
        split, samples, index = places[number]
        try:
            found += [f"{split} {index}: {text}" for text in mistakes(samples[index], data.kinds)]
        except UserError as error:
            found.append(error.message.replace("\n", " "))
    raise_all(found, f"the samples of {data.name}")
