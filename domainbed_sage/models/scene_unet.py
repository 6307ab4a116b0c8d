"""A U-Net for scenes with one head a task, which learns in minutes on a small machine what MTAN takes hours for."""

import itertools
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from domainbed_sage.models.multitask import MultiTaskModel, Output, check_sides

LEVELS = 5
STRIDE = 2 ** (LEVELS - 1)


def _convs(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two convolutions of 3 x 3, each with BatchNorm and ReLU."""
    layers: list[nn.Module] = []
    for before in (channels_in, channels_out):
        layers += [
            nn.Conv2d(before, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class SceneUNet(MultiTaskModel):
    """A U-Net that all tasks share; each task has a convolution of 1 x 1 of its own.

    The image gets two more channels, the place of each pixel in [-1, 1]: floors are below, and ceilings above.

    Source: Ronneberger et al., MICCAI 2015, with BatchNorm, padded convolutions and bilinear enlargement; the two
    channels are those of Liu et al. (CoordConv), NeurIPS 2018. No paper of this suite uses it.

    Args:
        outputs: the K tasks.
        width: channels of the first level; the levels have 1, 2, 4, 8 and 16 times as many.
    """

    def __init__(self, outputs: Sequence[Output], width: int) -> None:
        super().__init__(outputs, (3, STRIDE, STRIDE))
        wide = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(_convs(a, b) for a, b in zip([5, *wide], wide, strict=False))
        self.up = nn.ModuleList(_convs(a + b, a) for a, b in itertools.pairwise(wide))
        self.pred = nn.ModuleList(nn.Conv2d(width, output.channels, 1) for output in outputs)

    def raw(self, x: Tensor) -> list[Tensor]:
        """See `MultiTaskModel.raw`; height and width are multiples of 16."""
        check_sides("scene_unet", x, STRIDE)
        rows, columns = (torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in x.shape[-2:])
        place = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
        x = self.down[0](torch.cat([x, place], 1))
        kept = []
        for convs in list(self.down)[1:]:
            kept.append(x)
            x = convs(F.max_pool2d(x, 2))
        for convs in reversed(self.up):
            larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = convs(torch.cat([kept.pop(), larger], 1))
        return [head(x) for head in self.pred]


def scene_unet(outputs: Sequence[Output], *, width: Annotated[int, Field(ge=1)] = 8) -> SceneUNet:
    """Build it; with a width of 8, and the tasks of NYU-v2, it has 492,161 parameters.

    Args:
        outputs: the K tasks.
        width: see `SceneUNet`.
    """
    return SceneUNet(outputs, width)
