"""The multi-task attention network on SegNet, for images of scenes."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from domainbed_sage.models.multitask import MultiTaskModel, Output, check_sides

STAGES = 5
STRIDE = 2**STAGES  # height and width are multiples of it


def _conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


def _convs(channels: int, stage: int) -> nn.Sequential:
    """What follows the first convolution of a stage: one more, two from the third stage on."""
    return _conv(channels, channels) if stage < 2 else nn.Sequential(*(_conv(channels, channels) for _ in range(2)))


def _attention(channels_in: int, channels_out: int) -> nn.Sequential:
    """A mask in (0, 1) for each channel and pixel."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 1),
        nn.BatchNorm2d(channels_out),
        nn.Sigmoid(),
    )


class MTANSegNet(MultiTaskModel):
    """A SegNet that all tasks share; each task masks its features with attention modules of its own.

    Names, shapes and order of the parameters are those of the authors' code, so that its weights load, and so is the
    initialisation: Xavier's normal distribution, biases 0, gains 1. Convolutions between the attention modules belong
    to all tasks: their BatchNorm statistics are updated once for each task in a pass.

    Source: Liu et al., CVPR 2019, with the channels of its code; SAGE's Table 2 takes it as it is.

    Args:
        outputs: the K tasks.
        width: channels of the first stage; the stages have 1, 2, 4, 8 and 8 times as many.
    """

    def __init__(self, outputs: Sequence[Output], width: int) -> None:
        super().__init__(outputs, (3, STRIDE, STRIDE))
        wide = [width * factor for factor in (1, 2, 4, 8, 8)]
        before, after = [3, *wide[:-1]], [*wide[1:], wide[-1]]
        up = [wide[0], *wide[:-1]]  # channels that a decoder's stage ends with
        stages = range(STAGES)
        self.encoder_block = nn.ModuleList(_conv(before[i], wide[i]) for i in stages)
        self.decoder_block = nn.ModuleList(_conv(wide[i], up[i]) for i in stages)
        self.conv_block_enc = nn.ModuleList(_convs(wide[i], i) for i in stages)
        self.conv_block_dec = nn.ModuleList(_convs(up[i], i) for i in stages)
        self.encoder_att = nn.ModuleList(
            nn.ModuleList(_attention(wide[i] * (2 if i else 1), wide[i]) for i in stages) for _ in outputs
        )
        self.decoder_att = nn.ModuleList(
            nn.ModuleList(_attention(wide[i] + up[i], up[i]) for i in stages) for _ in outputs
        )
        self.encoder_block_att = nn.ModuleList(_conv(wide[i], after[i]) for i in stages)
        self.decoder_block_att = nn.ModuleList(_conv(wide[i], up[i]) for i in stages)
        for k, output in enumerate(outputs, start=1):
            head = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, output.channels, 1))
            self.add_module(f"pred_task{k}", head)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def raw(self, x: Tensor) -> list[Tensor]:
        """See `MultiTaskModel.raw`; height and width are multiples of 32."""
        check_sides("MTAN on SegNet", x, STRIDE)
        down, indices, deepest = self._encoded(x)
        up = list(self._decoded(deepest, indices))
        return [self._task(k, down, up) for k in range(len(self.task_names))]

    def _encoded(self, x: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor], Tensor]:
        """The shared features of each stage, before and after its further convolutions; places of maxima; the end."""
        features, indices = [], []
        for block, convs in zip(self.encoder_block, self.conv_block_enc, strict=True):
            first = block(x)
            second = convs(first)
            x, places = F.max_pool2d(second, 2, return_indices=True)
            features.append((first, second))
            indices.append(places)
        return features, indices, x

    def _decoded(self, x: Tensor, indices: list[Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of each stage, from the last to the first: its number, its enlarged input, and its features."""
        for i in reversed(range(STAGES)):
            large = F.max_unpool2d(x, indices[i], [2, 2])
            x = self.conv_block_dec[i](self.decoder_block[i](large))
            yield i, large, x

    def _task(self, k: int, down: list[tuple[Tensor, Tensor]], up: list[tuple[int, Tensor, Tensor]]) -> Tensor:
        """The output of task k."""
        attended: list[Tensor] = []
        for i, (first, second) in enumerate(down):
            mask = self.get_submodule(f"encoder_att.{k}.{i}")(torch.cat([first, *attended], 1))
            attended = [F.max_pool2d(self.encoder_block_att[i](mask * second), 2)]
        (x,) = attended
        for i, large, second in up:
            x = self.decoder_block_att[i](F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
            x = self.get_submodule(f"decoder_att.{k}.{i}")(torch.cat([large, x], 1)) * second
        return self.get_submodule(f"pred_task{k + 1}")(x)


def mtan_segnet(outputs: Sequence[Output], *, width: Annotated[int, Field(ge=1)] = 64) -> MTANSegNet:
    """Build it: 44,229,073 parameters for the three tasks of NYU-v2, 41,206,984 for the two of Cityscapes.

    Args:
        outputs: the K tasks.
        width: see `MTANSegNet`; the authors' is 64, and 8 makes it about 64 times smaller.
    """
    return MTANSegNet(outputs, width)
