"""From decoded images to the model's inputs.

Loader processes crop, resize and augment in uint8; conversion to float32 and normalisation happen on the device, so
that a quarter of the bytes is sent and the random stream is the same on every device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from domainbed_sage.core.hparams import Power
from domainbed_sage.data.corrupt import Corrupt
from domainbed_sage.data.decode import Decode
from domainbed_sage.models.base import ImageSpec

Transform: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Hyperparameters of the data.

    Attributes:
        batch_size: rows of each source domain in a minibatch (not in all: DomainBed's meaning).
        augment: ``crop_flip``: random resized crop (70-100 % of the area) and horizontal flip, CLIPood's choice;
            ``domainbed``: with colour jitter and random grey as well; ``none``: the evaluation transform.
        resize: evaluation transform: ``crop`` the centre after resizing the short side, or ``squash`` to a square as
            DomainBed does.
        interpolation: of all resizing.
        decode: image files are decoded in ``full``, JPEGs in ``draft`` at a reduced scale, or to a smaller size,
            ``resized``, which can be stored once for all runs; both keep 1.5 times the model's side. See `Decoder`.
        corrupt: images that `data check --leave_out` listed are an ``error``, or are left out: ``leave_out`` names them
            in every record.
    """

    batch_size: Annotated[int, Field(ge=1), Power(2, 3, 5.5, integer=True)] = 32
    augment: Literal["crop_flip", "domainbed", "none"] = "crop_flip"
    resize: Literal["crop", "squash"] = "crop"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    decode: Decode = "full"
    corrupt: Corrupt = "error"


def train_transform(options: DataOptions, image: ImageSpec) -> Transform:
    """Random transform of one training image, uint8 [3, H, W] -> uint8 [3, s, s]; draws from torch's generator."""
    if options.augment == "none":
        return eval_transform(options, image)
    steps: list[Callable[[Tensor], Tensor]] = [
        v2.RandomResizedCrop(image.size, scale=(0.7, 1.0), interpolation=_mode(options), antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    if options.augment == "domainbed":
        steps += [v2.ColorJitter(0.3, 0.3, 0.3, 0.3), v2.RandomGrayscale(0.1)]
    return v2.Compose(steps)


def eval_transform(options: DataOptions, image: ImageSpec) -> Transform:
    """Deterministic transform of one image, uint8 [3, H, W] -> uint8 [3, s, s]."""
    if options.resize == "squash":
        return v2.Resize((image.size, image.size), _mode(options), antialias=True)
    return v2.Compose([v2.Resize(image.size, _mode(options), antialias=True), v2.CenterCrop(image.size)])


def normalize(image: ImageSpec) -> Transform:
    """Map of a minibatch on its device, uint8 [N, 3, s, s] -> float32, with the model's mean and deviation."""
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(image.mean, image.std)])


def _mode(options: DataOptions) -> InterpolationMode:
    return InterpolationMode(options.interpolation)
