"""An on-disk copy of a dataset's images, resized and decoded, so that no run decodes them again.

Beside the folder ``PACS`` there is then a folder ``PACS.resized-336`` with two files per environment: ``NAME.bin``, the
pixels of one image after the other, and ``NAME.npz``, the index with a checksum of every image. Runs with the
hyperparameter ``decode: resized`` read it where it exists and decode the original files where it does not; both give
the same pixels with the same version of Pillow.
"""

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import atomic
from domainbed_sage.data.decode import Decoder
from domainbed_sage.data.environment import MultiDomainDataset

AHEAD = 256  # images decoded before they are written


def folder_of(root: Path, side: int) -> Path:
    """Folder of the images of the dataset in `root` whose short side is `side` pixels."""
    return root.with_name(f"{root.name}.resized-{side}")


class ResizedImages:
    """The stored images of one environment.

    Args:
        folder: see `folder_of`.
        name: the environment.
        keys: the environment's images, as the dataset has them now.

    Raises:
        UserError: the files are damaged, or were made of other images.
    """

    def __init__(self, folder: Path, name: str, keys: Sequence[str]) -> None:
        self.path = folder / f"{name}.bin"
        try:
            with (folder / f"{name}.npz").open("rb") as file, np.load(file, allow_pickle=False) as index:
                stored = index["keys"].tolist()
                self.shapes, self.checksums = index["shapes"], index["checksums"]
            self.ends = np.cumsum(self.shapes.astype(np.int64).prod(axis=1))
            size = self.path.stat().st_size
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise self._mistake(f"cannot be read ({error})") from None
        if stored != list(keys):
            raise self._mistake(f"holds {len(stored)} images that are not the {len(keys)} of the dataset now")
        if size != (self.ends[-1] if len(self.ends) else 0):
            raise self._mistake(f"has {size} bytes, and {self.ends[-1]} belong to it")

    def read(self, index: int) -> Tensor:
        """One image, uint8 [3, H, W].

        Raises:
            UserError: its checksum is wrong.
        """
        shape = self.shapes[index]
        count = int(shape.prod())
        pixels = np.fromfile(self.path, np.uint8, count, offset=int(self.ends[index]) - count)
        if zlib.crc32(pixels.data) != self.checksums[index]:
            raise self._mistake(f"is damaged at image {index}")
        return torch.from_numpy(pixels.reshape(shape))

    def _mistake(self, what: str) -> UserError:
        return UserError(
            f"{self.path} {what}. Build it again with `domainbed-sage data cache`, or remove {self.path.parent}: "
            f"the images are then decoded from the dataset's own files."
        )


def find(root: Path, side: int, name: str, keys: Sequence[str]) -> ResizedImages | None:
    """The stored images of the environment `name` of the dataset in `root`; `None` if nothing was stored.

    Raises:
        UserError: what was stored does not fit the dataset.
    """
    folder = folder_of(root, side)
    return ResizedImages(folder, name, keys) if folder.is_dir() else None


def store(root: Path, dataset: MultiDomainDataset, side: int) -> int:
    """Store the images of a dataset, all or none, and return their size in bytes.

    Args:
        root: the dataset's folder.
        dataset: as read from there.
        side: short side of the stored images, pixels; smaller ones keep their size.

    Raises:
        UserError: an image cannot be decoded, or the disk is full.
    """
    folder = folder_of(root, side)
    building = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    size = sum(_store(root / env.name, env.keys, Decoder("resized", side), building) for env in dataset.environments)
    shutil.rmtree(folder, ignore_errors=True)
    building.replace(folder)
    return size


def _store(root: Path, keys: Sequence[str], decode: Decoder, folder: Path) -> int:
    shapes, checksums, size = [], [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool, atomic(folder / f"{root.name}.bin") as file:
        images = _ahead(pool, decode, [root / key for key in keys])
        for image in tqdm(images, root.name, len(keys), unit="image", disable=None):
            pixels = image.numpy().tobytes()
            shapes.append(image.shape)
            checksums.append(zlib.crc32(pixels))
            size += file.write(pixels)
    with atomic(folder / f"{root.name}.npz") as file:
        np.savez(file, keys=np.array(keys), shapes=np.array(shapes, np.int32), checksums=np.array(checksums))
    return size


def _ahead(pool: ThreadPoolExecutor, decode: Decoder, paths: Sequence[Path]) -> Iterator[Tensor]:
    """Yield the images in order, decoding at most `AHEAD` of them before they are asked for."""
    for start in range(0, len(paths), AHEAD):
        yield from pool.map(decode, paths[start : start + AHEAD])
