"""CelebA's attributes: the lists, the images, and what does not fit together."""

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.multitask import celeba, samples
from domainbed_sage.data.multitask.facts import CELEBA_COUNTS, CELEBA_KINDS

COUNTS = {"train": 3, "validation": 1, "test": 2}
FILES = [f"{i:06d}.jpg" for i in range(1, 7)]
SPLIT = [0, 2, 0, 1, 2, 0]
ATTRIBUTES = np.random.default_rng(0).choice([-1, 1], (6, 40))


def write_lists(root, files=FILES, attributes=ATTRIBUTES, split=SPLIT, names=tuple(CELEBA_KINDS), number=None):
    rows = [f"{name}  {' '.join(f'{v:2d}' for v in row)} " for name, row in zip(files, attributes, strict=False)]
    text = "\n".join([str(len(rows) if number is None else number), " ".join(names) + " ", *rows, ""])
    (root / "list_attr_celeba.txt").write_text(text)
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {s}\n" for n, s in zip(FILES, split, strict=False)))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "img_align_celeba").mkdir()
    for i, name in enumerate(FILES):
        flat = np.full((218, 178, 3), 40 * i, np.uint8)
        Image.fromarray(flat).save(tmp_path / "img_align_celeba" / name, quality=95)
    write_lists(tmp_path)
    return tmp_path


def refused(root):
    with pytest.raises(UserError) as caught:
        celeba.load(root, counts=COUNTS)
    return str(caught.value)


def test_samples_are_those_of_the_lists(root):
    data = celeba.load(root, counts=COUNTS)
    assert list(data.splits) == ["train", "validation", "test"]
    for number, found in enumerate(data.splits.values()):
        places = [i for i, split in enumerate(SPLIT) if split == number]
        assert len(found) == len(places)
        for k, i in enumerate(places):
            image, targets = found[k]
            assert image.shape == (3, 64, 64)
            assert (255 * image - 40 * i).abs().max() < 2
            assert torch.stack(targets).tolist() == (ATTRIBUTES[i] > 0).astype(int).tolist()
    samples.check(data, iter)


def test_the_whole_image_is_resized(root):
    """Its left half is black, its right half white."""
    halves = np.zeros((218, 178, 3), np.uint8)
    halves[:, 89:] = 255
    Image.fromarray(halves).save(root / "img_align_celeba" / FILES[0], quality=95)
    image, _ = celeba.load(root, counts=COUNTS, side=20).train[0]
    assert image.shape == (3, 20, 20)
    assert image[..., :9].max() < 0.05
    assert image[..., 11:].min() > 0.95


def test_published_counts_and_attributes():
    assert (sum(CELEBA_COUNTS.values()), len(CELEBA_KINDS)) == (202_599, 40)
    assert list(CELEBA_COUNTS.values()) == [162_770, 19_867, 19_962]


def test_the_population_tells_lists_apart(root):
    before = celeba.load(root, counts=COUNTS).population
    assert before.startswith("3 train, 1 validation, 2 test, ")
    write_lists(root, attributes=-ATTRIBUTES)
    others = celeba.load(root, counts=COUNTS).population
    write_lists(root, split=SPLIT[::-1])
    assert len({before, others, celeba.load(root, counts=COUNTS).population}) == 3


def test_numbers_of_images_are_the_published_ones_unless_a_part_is_declared(root):
    with pytest.raises(UserError, match=r"train should have 162,770 images. Found 3") as caught:
        celeba.load(root)
    assert "3 mistakes" in str(caught.value)
    assert f"If it is a part on purpose, say which in {root}/SUBSET.txt" in str(caught.value)
    (root / "SUBSET.txt").write_text("six faces")
    assert celeba.load(root).population.endswith(", subset: six faces")
    write_lists(root, split=[0, 2, 0, 2, 2, 0])
    with pytest.raises(UserError, match=r"1 mistake in .*:\n  - validation should have 1 images\. Found 0"):
        celeba.load(root)


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"number": 7}, "should have 7 files, as it says. Found 6 lines."),
        ({"names": tuple(CELEBA_KINDS)[1:]}, "Found 39; 5_o_Clock_Shadow are in one of the two only."),
        ({"names": tuple(CELEBA_KINDS)[::-1]}, "from 5_o_Clock_Shadow to Young. Found 40."),
        ({"attributes": ATTRIBUTES[:, 1:]}, "a file and 40 numbers on every line, each -1 or 1. Found '000001.jpg"),
        ({"attributes": np.maximum(ATTRIBUTES, 0)}, "a file and 40 numbers on every line, each -1 or 1. Found"),
        ({"split": [0, 0, 3, 0, 1, 2]}, "a file and 1 number on every line, each 0 or 1 or 2. Found '000003.jpg 3'"),
        ({"split": SPLIT[:5]}, "Found 6 and 5, which differ first in number 6."),
        ({"files": [FILES[1], FILES[0], *FILES[2:]]}, "Found 6 and 6, which differ first in number 1."),
    ],
)
def test_lists_that_do_not_fit_are_refused(root, lists, words):
    write_lists(root, **lists)
    assert words in refused(root)


def test_a_file_is_listed_once(root):
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        path = root / name
        path.write_text(path.read_text().replace("000002", "000001"))
    assert "should name every file once. Found '000001.jpg' 2 times." in refused(root)


def test_missing_and_surplus_images_are_named(root):
    (root / "img_align_celeba" / FILES[3]).rename(root / "img_align_celeba" / "7.jpg")
    (root / "img_align_celeba" / ".DS_Store").write_text("")
    message = refused(root)
    assert f"1 file missing in {root}/img_align_celeba: 000004.jpg" in message
    assert f"1 file not in the lists in {root}/img_align_celeba: 7.jpg" in message


def test_missing_parts_are_named(root):
    (root / "img_align_celeba").rename(root / "elsewhere")
    assert f"there is no folder {root}/img_align_celeba" in refused(root)
    (root / "list_eval_partition.txt").unlink()
    assert f"There is no file {root}/list_eval_partition.txt. CelebA is img_align_celeba/" in refused(root)
    (root / "list_attr_celeba.txt").write_text("0\n")
    assert "should have 3 lines or more. Found 1" in refused(root)


def test_damaged_images_are_named_when_they_are_read(root):
    (root / "img_align_celeba" / FILES[1]).write_bytes(b"no image")
    data = celeba.load(root, counts=COUNTS)
    with pytest.raises(UserError, match=r"000002\.jpg cannot be decoded"):
        samples.check(data, iter)


def test_a_side_of_no_pixel_is_refused(root):
    with pytest.raises(UserError, match=r"1 pixel or more\. Found side = 0"):
        celeba.load(root, side=0)
