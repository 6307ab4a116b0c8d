"""Dense prediction of a scene, as on NYU-v2 and Cityscapes: its classes, its depth, and its surface normals.

Losses and metrics are those of MTAN (Liu et al., CVPR 2019), which all methods of SAGE's Table 2 were measured with:
what the table prints is a mean over batches of the means over their valid pixels, so that it depends on the batch size.
Beside each of these numbers stands the one over all pixels, whose name ends in ``_pixels``.

A batch without any valid pixel says nothing: its loss is 0, with a gradient of 0, and no mean over batches counts it.
The authors' codes get NaN there. A prediction that is NaN at a valid pixel makes the loss NaN.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from domainbed_sage.core.errors import UserError
from domainbed_sage.tasks.augment import Crop
from domainbed_sage.tasks.base import Meter, Task, check_shape
from domainbed_sage.tasks.scene_meters import ConfusionMeter, DepthMeter, NormalsMeter

IGNORED = -1


class SceneTask(Task):
    """A task whose target has a value for each pixel of the image."""

    @abstractmethod
    def cropped(self, target: Tensor, crop: Crop) -> Tensor:
        """The target of the cropped image."""


@dataclass(frozen=True)
class Segmentation(SceneTask):
    """The class of each pixel: log-probabilities [N, C, H, W] and class indices [N, H, W]; -1 is ignored.

    The loss is the mean negative log-probability.

    Attributes:
        classes: number C of classes.
        name: see `Task`.
    """

    classes: int
    name: str = "segmentation"
    activation: ClassVar[str] = "log_softmax"

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise UserError(f"Segmentation should have at least 2 classes. Found {self.classes}.")

    @property
    def channels(self) -> int:
        """See `Task.channels`."""
        return self.classes

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See `Task.loss`."""
        check_shape(self.name, target, *prediction[:, 0].shape)
        total = F.nll_loss(prediction, target.long(), ignore_index=IGNORED, reduction="sum")
        return total / (target != IGNORED).sum().clamp_min(1)

    def meter(self) -> Meter:
        """See `ConfusionMeter`."""
        return ConfusionMeter(self.name, self.classes, IGNORED)

    def tally(self, target: Tensor) -> Tensor:
        """See `Task.tally`: how often each pixel has each class [C, H, W]."""
        valid = target != IGNORED
        classes = F.one_hot(torch.where(valid, target, 0).long(), self.classes)
        return (classes * valid[..., None]).sum(0).movedim(-1, 0).double()

    def trivial(self, tally: Tensor) -> Tensor:
        """See `Task.trivial`: each pixel's most frequent class; among equally frequent ones that of most pixels."""
        pixels = tally.sum((1, 2), keepdim=True)
        return tally + pixels / (pixels.sum() + 1)

    def cropped(self, target: Tensor, crop: Crop) -> Tensor:
        """See `Crop.labels`."""
        return crop.labels(target)


@dataclass(frozen=True)
class Depth(SceneTask):
    """The depth of each pixel, or its inverse: [N, 1, H, W]; a target of 0 is ignored.

    The loss is the mean absolute error.

    Attributes:
        name: see `Task`.
    """

    name: str = "depth"

    @property
    def channels(self) -> int:
        """See `Task.channels`."""
        return 1

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See `Task.loss`."""
        check_shape(self.name, target, *prediction.shape)
        valid = target != 0
        return ((prediction - target).abs() * valid).sum() / valid.sum().clamp_min(1)

    def meter(self) -> Meter:
        """See `DepthMeter`."""
        return DepthMeter(self.name)

    def tally(self, target: Tensor) -> Tensor:
        """See `Task.tally`: the sum of each pixel's depths, and how many there are [2, H, W]."""
        return torch.cat([target, target != 0], 1).sum(0, dtype=torch.float64)

    def trivial(self, tally: Tensor) -> Tensor:
        """See `Task.trivial`: each pixel's mean depth; where it has none, that of all pixels."""
        total, number = tally
        everywhere = total.sum() / number.sum().clamp_min(1)
        return torch.where(number > 0, total / number.clamp_min(1), everywhere)[None]

    def cropped(self, target: Tensor, crop: Crop) -> Tensor:
        """See `Crop.depth`."""
        return crop.depth(target)


@dataclass(frozen=True)
class Normals(SceneTask):
    """The surface normal of each pixel: unit vectors [N, 3, H, W]; a target whose components sum to 0 is ignored.

    The loss is 1 minus the mean cosine. The mask is the authors': it also drops normals such as (1, -1, 0) / √2.

    Attributes:
        name: see `Task`.
    """

    name: str = "normals"
    activation: ClassVar[str] = "unit"

    @property
    def channels(self) -> int:
        """See `Task.channels`."""
        return 3

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See `Task.loss`."""
        check_shape(self.name, target, *prediction.shape)
        valid = target.sum(1, keepdim=True) != 0
        pixels = valid.sum()
        mean = (prediction * target * valid).sum() / pixels.clamp_min(1)
        return pixels.clamp_max(1) - mean

    def meter(self) -> Meter:
        """See `NormalsMeter`."""
        return NormalsMeter(self.name)

    def tally(self, target: Tensor) -> Tensor:
        """See `Task.tally`: the sum of each pixel's normals [3, H, W]."""
        return target.sum(0, dtype=torch.float64)

    def trivial(self, tally: Tensor) -> Tensor:
        """See `Task.trivial`: the direction of each pixel's mean normal; where it has none, that of all pixels."""
        everywhere = tally.sum((1, 2), keepdim=True)
        return F.normalize(torch.where(tally.any(0), tally, everywhere), dim=0)

    def cropped(self, target: Tensor, crop: Crop) -> Tensor:
        """See `Crop.normals`."""
        return crop.normals(target)


def cropped(image: Tensor, targets: tuple[Tensor, ...], tasks: tuple[SceneTask, ...], crop: Crop) -> tuple[Tensor, ...]:
    """The same crop of an image [3, H, W] and of its targets, one for each task."""
    moved = (task.cropped(target, crop) for task, target in zip(tasks, targets, strict=True))
    return crop.image(image), *moved
