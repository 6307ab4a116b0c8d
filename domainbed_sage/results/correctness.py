"""Which images of its held-out environments a run classifies correctly: `<run>/correct.npz`, three bits an image.

The bits are in the order of the environment's images, not of a split, so that trials with other splits line up.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import write_atomically

FILE = "correct.npz"
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Correct:
    """One held-out environment of N images.

    Attributes:
        images: hash of the names of its images, see `identity`.
        tested: whether an image is in the in split, whose accuracy tables report, [N].
        at: by training step, whether an image is classified correctly, [N]; False where it is not tested.
    """

    images: str
    tested: BoolArray
    at: Mapping[int, BoolArray]

    def accuracy(self, step: int) -> float:
        """Accuracy on the in split, computed as in the records."""
        return float(self.at[step].sum() / self.tested.sum())


def identity(names: Iterable[str]) -> str:
    """The sha256 of the names of an environment's images, in their order."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode(errors="surrogateescape")).hexdigest()


def write(folder: Path, envs: Mapping[int, Correct]) -> Path:
    """Write the file of a run's folder, all or nothing; equal contents are equal bytes.

    Args:
        folder: the run's folder.
        envs: the held-out environments by index.

    Raises:
        UserError: it cannot be written.
    """
    arrays: dict[str, npt.NDArray[np.generic]] = {"envs": np.array(list(envs), np.int64)}
    for env, correct in envs.items():
        arrays[f"{env}_images"] = np.array(correct.images)
        arrays[f"{env}_size"] = np.array(len(correct.tested))
        arrays[f"{env}_tested"] = np.packbits(correct.tested)
        arrays[f"{env}_steps"] = np.array(sorted(correct.at), np.int64)
        arrays |= {f"{env}_correct_{step}": np.packbits(correct.at[step]) for step in sorted(correct.at)}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return write_atomically(folder / FILE, content.getvalue())


def read(path: Path) -> dict[int, Correct]:
    """The held-out environments of a run, by index.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {int(env): _environment(file, int(env)) for env in file["envs"]}
    except (OSError, EOFError, ValueError, TypeError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as the correct images of a run ({error}).") from error


def _environment(file: Mapping[str, npt.NDArray[np.generic]], env: int) -> Correct:
    size = int(file[f"{env}_size"])

    def bits(name: str) -> BoolArray:
        packed = np.asarray(file[f"{env}_{name}"])
        if packed.dtype != np.uint8 or packed.shape != ((size + 7) // 8,):
            raise ValueError(f"{name} of environment {env} is not of {size} images")
        return np.unpackbits(packed, count=size).astype(bool)

    tested, steps = bits("tested"), [int(step) for step in file[f"{env}_steps"]]
    correct = Correct(str(file[f"{env}_images"]), tested, {step: bits(f"correct_{step}") for step in steps})
    if not tested.any() or any((own & ~tested).any() for own in correct.at.values()):
        raise ValueError(f"environment {env} has correct images that are not tested")
    return correct
