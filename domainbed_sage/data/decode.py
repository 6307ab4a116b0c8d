"""From image files to pixels: in full, at a reduced scale, or resized."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.limits import is_refusal

Decode: TypeAlias = Literal["full", "draft", "resized"]

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF files, and a value of the second
UNKNOWN_WHITE = {"I": "whole numbers, signed or of 32 bits", "F": "floating-point numbers"}
MARGIN = 1.5  # side of a reduced image to the model's: a crop of 70 % of the area at 3:4 still shrinks


class Undecodable(UserError):  # noqa: N818 - reads as what it is
    """The file is not an image, is damaged, or has pixels that cannot be converted to 8 bits."""


@dataclass(frozen=True)
class Decoder:
    """Decodes image files to RGB, uint8 [3, H, W]; equal files give equal pixels.

    For 16-bit grey the high byte is kept, as Pillow does with 16-bit colour (its own conversion of grey would make
    everything above 255 white). Files that do not say which pixel value is white are refused.

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
            Undecodable: the file is not an image, is damaged, or has pixels of a kind that is refused.
            UserError: the file cannot be read, for reasons outside of it.
        """
        try:
            with Image.open(path) as image:
                return vision.pil_to_tensor(self._reduced(image))
        except (UserError, MemoryError):
            raise
        except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged data
            if isinstance(error, OSError) and is_refusal(error):
                raise
            if isinstance(error, OSError) and error.errno is not None:
                raise UserError(
                    f"{path} cannot be read ({error.strerror}). Restore it, or fix the disk, its permissions or the "
                    f"limit that is named."
                ) from None
            raise Undecodable(
                f"{path} cannot be decoded as an image ({error}). It is damaged or not an image: restore it from the "
                f"source of the dataset, or see `domainbed-sage data check --images`. Nothing is skipped or replaced "
                f"silently."
            ) from None

    def _reduced(self, image: Image.Image) -> Image.Image:
        if self.mode == "full":
            return _rgb(image)
        at_least = self.side if self.mode == "draft" else 2 * self.side  # the resize needs pixels to average
        image.draft(None, (at_least, at_least))  # has an effect on JPEGs only
        rgb = _rgb(image)
        shrink = self.side / min(rgb.size)
        if self.mode == "draft" or shrink >= 1:
            return rgb
        width, height = (max(self.side, round(length * shrink)) for length in rgb.size)
        return rgb.resize((width, height), Image.Resampling.BICUBIC)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM"):  # PPM's reader scales to 16 bits
        image = _high_bytes(image)
    elif image.mode in UNKNOWN_WHITE:
        raise _refused(image, UNKNOWN_WHITE[image.mode])
    return image.convert("RGB")


def _high_bytes(image: Image.Image) -> Image.Image:
    tags: Any = getattr(image, "tag_v2", {})
    if (bits := tags.get(BITS_PER_SAMPLE, (16,))) != (16,):  # Pillow leaves the upper bits at 0: nearly black
        raise _refused(image, f"whole numbers of {bits[0]} bits")
    high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
    return Image.fromarray(~high if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else high)


def _refused(image: Image.Image, kind: str) -> Undecodable:
    return Undecodable(
        f"{getattr(image, 'filename', 'The image')} has pixels that are {kind}, and no rule is known that brings "
        f"them to 8 bits. Convert the images of this kind yourself, all by the same rule. Nothing is guessed."
    )


def decoder(mode: Decode, image_size: int) -> Decoder:
    """The decoder for a model that takes images of `image_size` pixels."""
    return Decoder(mode, 0 if mode == "full" else math.ceil(MARGIN * image_size))


class DecodedCache:
    """Decoded images kept in memory within a budget, so that they are not decoded again.

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
