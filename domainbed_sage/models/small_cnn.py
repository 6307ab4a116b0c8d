"""A small convolutional network for 32-pixel images, trained from scratch."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from domainbed_sage.core.hparams import Choice
from domainbed_sage.models.base import ImageSpec, Model
from domainbed_sage.models.registry import register


def _block(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, channels_out), nn.ReLU(inplace=True))


@register("small_cnn", lr=1e-3, batch_size=8)
def small_cnn(
    classes: Sequence[str],
    *,
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 16,
    dropout: Annotated[float, Field(ge=0, lt=1), Choice(0.0, 0.1, 0.5)] = 0.0,
) -> Model:
    """Build four convolutions with GroupNorm (no layer mixes samples), global max pooling, and a linear classifier.

    Args:
        classes: names of the C classes.
        width: channels of the first layer; the last has eight times as many.
        dropout: probability of dropping a feature in training.
    """
    featurizer = nn.Sequential(
        _block(3, width, kernel=4, stride=2),
        _block(width, 2 * width),
        nn.MaxPool2d(2),
        _block(2 * width, 4 * width),
        nn.MaxPool2d(2),
        _block(4 * width, 8 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
    )
    half = (0.5, 0.5, 0.5)
    return Model(featurizer, nn.Linear(8 * width, len(classes)), ImageSpec(32, half, half))
