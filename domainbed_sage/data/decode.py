"""From image files to pixels: in full, at a reduced scale, or brought to a smaller size."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.limits import is_refusal

Decode: TypeAlias = Literal["full", "draft", "resized"]

MARGIN = 1.5  # side of a reduced image to the model's: a crop of 70 % of the area at 3:4 still shrinks


@dataclass(frozen=True)
class Decoder:
    """Decodes image files to RGB, uint8 [3, H, W]; equal files give equal pixels.

    Attributes:
        mode: ``full``: every pixel, as DomainBed does. ``draft``: JPEGs at the smallest of the scales 1, 1/2, 1/4, 1/8
            that leaves both sides at `side` or more; libjpeg then skips most of its work. ``resized``: the short side
            is brought down to `side` as well (bicubic, antialiased; never up), as `data cache` stores it.
        side: see `mode`; pixels.
    """

    mode: Decode = "full"
    side: int = 0

    def __call__(self, path: Path) -> Tensor:
        """Decode one file.

        Raises:
            UserError: the file is no image, or is damaged.
        """
        try:
            with Image.open(path) as image:
                return vision.pil_to_tensor(self._reduced(image))
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, OSError) and is_refusal(error):
                raise
            raise UserError(
                f"{path} cannot be decoded as an image ({error}). It is damaged or not an image: restore it from the "
                f"source of the dataset, or see `domainbed-sage data check --images`. Nothing is skipped or replaced "
                f"silently."
            ) from None

    def _reduced(self, image: Image.Image) -> Image.Image:
        if self.mode == "full":
            return image.convert("RGB")
        at_least = self.side if self.mode == "draft" else 2 * self.side  # the resize wants pixels to average
        image.draft(None, (at_least, at_least))  # of JPEGs only; other formats are left as they are
        rgb = image.convert("RGB")
        shrink = self.side / min(rgb.size)
        if self.mode == "draft" or shrink >= 1:
            return rgb
        width, height = (max(self.side, round(length * shrink)) for length in rgb.size)
        return rgb.resize((width, height), Image.Resampling.BICUBIC)


def decoder(mode: Decode, image_size: int) -> Decoder:
    """The decoder for a model that takes images of `image_size` pixels."""
    return Decoder(mode, 0 if mode == "full" else math.ceil(MARGIN * image_size))


class DecodedCache:
    """Decoded images kept in memory while they fit a budget, so that none is decoded twice for nothing.

    Args:
        budget_gb: memory for images, GB; 0 keeps none. Every loader worker process has a cache of its own.
    """

    def __init__(self, budget_gb: float) -> None:
        self.free_bytes = int(budget_gb * 1e9)
        self._images: dict[tuple[Path, Decoder], Tensor] = {}

    def read(self, path: Path, decode: Decoder) -> Tensor:
        """Return the image as RGB, uint8 [3, H, W]."""
        key = (path, decode)
        if key in self._images:
            return self._images[key]
        image = decode(path)
        if image.nbytes <= self.free_bytes:
            self._images[key] = image
            self.free_bytes -= image.nbytes
        return image
