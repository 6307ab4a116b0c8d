"""MTAN's augmentation of scenes: a random crop at one of three scales, enlarged again, and a random flip."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from domainbed_sage.core.errors import UserError

SCALES = (1.0, 1.2, 1.5)
NUMBERS = 4  # uniform random numbers that one crop takes


@dataclass(frozen=True)
class Crop:
    """A rectangle of int(H / scale) x int(W / scale) pixels of a scene, enlarged to H x W, then perhaps flipped.

    It holds everything that is random, so that the same crop of a scene is always the same. All methods take tensors
    [..., H, W] on any device and return new ones of the same shape, dtype and device.

    Source: the data readers of MTAN (Liu et al., CVPR 2019), which all later codes took over.

    Attributes:
        scale: by how much the scene grows, at least 1.
        top: first row of the rectangle.
        left: first column of the rectangle.
        flipped: whether left and right change places.
    """

    scale: float
    top: int
    left: int
    flipped: bool

    @classmethod
    def of(cls, uniform: Sequence[float], height: int, width: int) -> "Crop":
        """Scale, row, column and flip from four numbers in [0, 1); each allowed value is equally likely."""
        if len(uniform) != NUMBERS or not all(0 <= u < 1 for u in uniform):
            raise UserError(f"A crop takes {NUMBERS} numbers in [0, 1). Found {list(uniform)}.")
        scale = SCALES[int(uniform[0] * len(SCALES))]
        free_rows, free_columns = height - int(height / scale), width - int(width / scale)
        top, left = int(uniform[1] * (free_rows + 1)), int(uniform[2] * (free_columns + 1))
        return cls(scale, top, left, uniform[3] < 0.5)

    def image(self, image: Tensor) -> Tensor:
        """Bilinear, corners on corners."""
        cut = self._cut(image)
        size = image.shape[-2:]
        large = F.interpolate(cut.reshape(-1, 1, *cut.shape[-2:]), size, mode="bilinear", align_corners=True)
        return self._flip(large.reshape(image.shape))

    def labels(self, labels: Tensor) -> Tensor:
        """Nearest pixels. Their places are computed in float32, as torch does: at 1.2 float64 finds other pixels."""
        cut = self._cut(labels)
        for axis in (-2, -1):
            cut = cut.index_select(axis, _nearest(cut.shape[axis], labels.shape[axis], labels.device))
        return self._flip(cut)

    def depth(self, depth: Tensor) -> Tensor:
        """Nearest pixels, divided by the scale: what looks larger by s is nearer by s.

        This holds for depth in metres (NYU-v2). It is wrong for inverse depth (Cityscapes), which grows by s where the
        depth shrinks by s; all public codes divide there as well, and so do we, to train on the same targets.
        """
        return self.labels(depth) / self.scale

    def normals(self, normals: Tensor) -> Tensor:
        """Bilinear, not normalised again, of [..., 3, H, W]; a flip turns the x component, the first one, around."""
        moved = self.image(normals)
        return torch.cat([-moved[..., :1, :, :], moved[..., 1:, :, :]], -3) if self.flipped else moved

    def _cut(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows, columns = int(height / self.scale), int(width / self.scale)
        inside = 0 <= self.top <= height - rows and 0 <= self.left <= width - columns
        if not (self.scale >= 1 and rows and columns and inside):
            raise UserError(f"{self} does not lie within {height} x {width} pixels.")
        return x[..., self.top : self.top + rows, self.left : self.left + columns]

    def _flip(self, x: Tensor) -> Tensor:
        return x.flip(-1) if self.flipped else x


def _nearest(source: int, size: int, device: torch.device) -> Tensor:
    """The source index of each of `size` pixels [size]."""
    return (torch.arange(size, dtype=torch.float32, device=device) * (source / size)).long()
