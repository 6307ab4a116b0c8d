"""NYU-v2 and Cityscapes in MTAN's layout, on small folders: what is read, and what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from multitask_cases import CITY, HOMES, write_layout

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.multitask import mtan_layout, samples
from domainbed_sage.data.multitask.facts import CITYSCAPES, NYU


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("mtan") / "nyuv2"
    write_layout(root, HOMES)
    return root


@pytest.fixture
def root(original, tmp_path):
    """A copy to break."""
    return shutil.copytree(original, tmp_path / "nyuv2")


def change(path, function):
    np.save(path, function(np.load(path)))


def refused(root, layout=HOMES):
    with pytest.raises(UserError) as caught:
        mtan_layout.read(root, layout)
    return str(caught.value)


def unreadable(root, index=1, layout=HOMES):
    with pytest.raises(UserError) as caught:
        mtan_layout.read(root, layout).train[index]
    return str(caught.value)


def test_samples_are_those_of_the_files(original):
    data = mtan_layout.read(original, HOMES)
    assert (len(data.train), len(data.test)) == (3, 2)
    for samples_, folder in ((data.train, "train"), (data.test, "val")):
        for i in range(len(samples_)):
            image, (label, depth, normal) = samples_[i]
            files = {kind: np.load(original / folder / kind / f"{i}.npy") for kind in HOMES.shapes}
            assert (image.dtype, label.dtype, depth.dtype, normal.dtype) == (
                *[torch.float32, torch.int64],
                *[torch.float32] * 2,
            )
            assert torch.equal(image.permute(1, 2, 0), torch.from_numpy(files["image"]).float())
            assert torch.equal(label.double(), torch.from_numpy(files["label"]).double())
            assert torch.equal(depth.permute(1, 2, 0), torch.from_numpy(files["depth"]).float())
            assert torch.equal(normal.permute(1, 2, 0), torch.from_numpy(files["normal"]).float())
            assert samples.mistakes(samples_[i], HOMES.kinds) == []
    assert [list(data.kinds), [k.channels for k in data.kinds.values()]] == [
        ["segmentation", "depth", "normal"],
        [13, 1, 3],
    ]


def test_cityscapes_has_two_tasks_and_its_labels_in_a_folder_of_their_own(tmp_path):
    write_layout(tmp_path / "cityscapes", CITY)
    (tmp_path / "cityscapes" / "train" / "label_19").mkdir()  # ships as well, and is not read
    data = mtan_layout.read(tmp_path / "cityscapes", CITY)
    image, (label, depth) = data.train[0]
    assert (image.shape, label.shape, depth.shape) == ((3, 4, 8), (4, 8), (1, 4, 8))
    assert torch.equal(label.double(), torch.from_numpy(np.load(tmp_path / "cityscapes/train/label_7/0.npy")).double())


def test_the_published_sizes():
    assert (NYU.counts, NYU.size, NYU.kinds["segmentation"].channels) == ({"train": 795, "test": 654}, (288, 384), 13)
    assert (CITYSCAPES.counts, CITYSCAPES.size) == ({"train": 2975, "test": 500}, (128, 256))
    assert NYU.shapes == {
        "image": (288, 384, 3),
        "label": (288, 384),
        "depth": (288, 384, 1),
        "normal": (288, 384, 3),
    }
    assert list(CITYSCAPES.shapes) == ["image", "label_7", "depth"]


def test_loops_end_and_no_index_counts_from_the_end(original):
    train = mtan_layout.read(original, HOMES).train
    assert len(list(train)) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            train[index]


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int16", "int8"])
def test_whole_labels_of_any_type_are_read(root, dtype):
    before = mtan_layout.read(root, HOMES).train[0][1][0]
    change(root / "train/label/0.npy", lambda a: a.astype(dtype))
    assert torch.equal(mtan_layout.read(root, HOMES).train[0][1][0], before)


def test_arrays_in_the_order_of_fortran_are_the_same_arrays(root):
    before = mtan_layout.read(root, HOMES).train[0][0]
    change(root / "train/image/0.npy", np.asfortranarray)
    assert torch.equal(mtan_layout.read(root, HOMES).train[0][0], before)


# The population


def test_the_population_tells_copies_apart(root):
    before = mtan_layout.read(root, HOMES).population
    assert before.startswith("3 train, 2 test, ")
    assert mtan_layout.read(root, HOMES).population == before
    change(root / "val/label/1.npy", lambda a: np.where(a == a.max(), 0, a))
    labels = mtan_layout.read(root, HOMES).population
    a, b = (np.load(root / f"train/image/{i}.npy") for i in (0, 1))
    np.save(root / "train/image/0.npy", b)
    np.save(root / "train/image/1.npy", a)
    assert len({before, labels, mtan_layout.read(root, HOMES).population}) == 3


def test_a_declared_part_has_as_many_samples_as_images(root):
    for kind in HOMES.shapes:
        (root / "train" / kind / "2.npy").unlink()
    assert refused(root).endswith(
        f"part on purpose, say which in {root}/SUBSET.txt: every record and table will then name it."
    )
    (root / "SUBSET.txt").write_text("two rooms\n")
    data = mtan_layout.read(root, HOMES)
    assert len(data.train) == 2
    assert data.population.endswith(", subset: two rooms")
    for kind in HOMES.shapes:
        for i in range(2):
            (root / "train" / kind / f"{i}.npy").unlink()
    assert refused(root).endswith("should hold 0.npy to 0.npy; 1 file missing: 0.npy")
    shutil.rmtree(root / "train")
    assert "there is no folder" in refused(root)


# What is refused before anything is read


def test_a_missing_folder_is_explained(tmp_path):
    assert "should hold NYUv2 in MTAN's layout: {train,val}/{image,label,depth,normal}/0.npy" in refused(tmp_path / "x")


def test_missing_and_surplus_files_are_named_all_at_once(root):
    (root / "train/depth/1.npy").unlink()
    shutil.copy(root / "val/image/0.npy", root / "val/image/2.npy")
    (root / "val/label/notes.txt").write_text("")
    (root / "val/label/.DS_Store").write_text("")
    (root / "val/label/Thumbs.db").write_text("")
    shutil.rmtree(root / "val/normal")
    message = refused(root)
    assert "4 mistakes in the files of NYUv2" in message
    assert f"{root}/train/depth should hold 0.npy to 2.npy; 1 file missing: 1.npy" in message
    assert f"{root}/val/image should hold 0.npy to 1.npy; 1 file too many: 2.npy" in message
    assert f"{root}/val/label should hold 0.npy to 1.npy; 1 file too many: notes.txt" in message
    assert f"there is no folder {root}/val/normal" in message


def test_hidden_arrays_are_too_many(root):
    shutil.copy(root / "val/image/0.npy", root / "val/image/._0.npy")
    assert "1 file too many: ._0.npy" in refused(root)


def test_long_lists_are_cut(root):
    layout = replace(HOMES, counts={"train": 20, "test": 2})
    assert "17 files missing: 3.npy, 4.npy, 5.npy, 6.npy, 7.npy …" in refused(root, layout)


@pytest.mark.parametrize(
    ("file", "function", "words"),
    [
        (
            "train/image/1.npy",
            lambda a: (255 * a).astype(np.uint8),
            "floating-point numbers [6, 8, 3]. Found uint8 [6, 8, 3]",
        ),
        ("train/image/1.npy", lambda a: a.transpose(2, 0, 1), "Found float32 [3, 6, 8] in 1 file: 1.npy"),
        (
            "val/depth/0.npy",
            lambda a: a[..., 0],
            "floating-point numbers [6, 8, 1]. Found float32 [6, 8] in 1 file: 0.npy",
        ),
        ("val/depth/0.npy", lambda a: (1000 * a).astype(np.int32), "Found int32 [6, 8, 1]"),
        ("val/label/0.npy", lambda a: a == 1, "whole numbers, of any type [6, 8]. Found bool [6, 8]"),
        ("val/label/0.npy", lambda a: a[:-1], "Found float32 [5, 8]"),
        ("val/normal/0.npy", lambda a: a.astype(complex), "Found complex128 [6, 8, 3]"),
    ],
)
def test_other_types_and_shapes_are_refused(root, file, function, words):
    change(root / file, function)
    assert words in refused(root)


@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_damaged_files_are_named(root, content):
    path = root / "train/normal/2.npy"
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    assert f"{root}/train/normal should hold arrays" in refused(root)
    assert "a file that is damaged" in refused(root)
    assert "in 1 file: 2.npy" in refused(root)


def test_objects_are_not_unpickled(root):
    np.save(root / "train/depth/0.npy", np.array([{}]), allow_pickle=True)
    assert "a file that is damaged" in refused(root)


# What is refused when it is read


@pytest.mark.parametrize(
    ("kind", "function", "words"),
    [
        ("image", lambda a: 255 * a, "the image should have values in [0, 1]. Found"),
        (
            "image",
            lambda a: np.where(a == a.max(), np.nan, a),
            "the image should have values in [0, 1]. Found 1 values that",
        ),
        ("label", lambda a: a + 0.5, "should hold whole numbers. Found -0.5, 0.5"),
        ("label", lambda a: np.where(a == a.max(), np.inf, a), "should hold whole numbers. Found inf"),
        (
            "label",
            lambda a: np.where(a == a.max(), 13, a),
            "labels should be from 0 to 12, or -1 where they are ignored. Found 13",
        ),
        ("label", lambda a: np.where(a < 0, 255, a), "Found 255"),
        ("label", lambda a: np.where(a < 0, -2, a), "Found -2"),
        (
            "depth",
            lambda a: np.where(a == a.max(), np.nan, a),
            "depths should be finite, from 0 (invalid) to 100. Found 1 values",
        ),
        ("depth", lambda a: -a, "depths should be finite, from 0 (invalid) to 100. Found -"),
        ("depth", lambda a: 1000 * a, "depths should be finite, from 0 (invalid) to 100. Found"),
        (
            "normal",
            lambda a: (a + 1) / 2,
            "normals should have length 1, or be (0, 0, 0) where they are invalid. Found lengths",
        ),
        ("normal", lambda a: 2 * a, "Found lengths 2 to 2, and length 1 at 0% of the valid pixels"),
        ("normal", lambda a: np.where(a == a.max(), np.nan, a), "normals should be finite. Found"),
    ],
)
def test_other_values_are_refused(root, kind, function, words):
    change(root / f"train/{kind}/1.npy", lambda a: function(a).astype(a.dtype))
    assert words in unreadable(root)
    assert f"{root}/train" in unreadable(root)
    mtan_layout.read(root, HOMES).train[0]  # the others are read


def test_disparities_above_1_are_not_inverse_depth(tmp_path):
    write_layout(tmp_path, CITY)
    change(tmp_path / "train/depth/1.npy", lambda a: (65535 * a).astype(a.dtype))
    assert "depths should be finite, from 0 (invalid) to 1. Found" in unreadable(tmp_path, layout=CITY)


def test_check_reads_everything_and_lists_all(root):
    data = mtan_layout.read(root, HOMES)
    seen = []
    samples.check(data, lambda numbers: seen.extend(numbers) or numbers)
    assert seen == [0, 1, 2, 3, 4]
    change(root / "train/depth/1.npy", lambda a: -a)
    change(root / "val/label/0.npy", lambda a: a + np.float32(0.5))
    with pytest.raises(UserError, match="2 mistakes in the samples of NYUv2") as caught:
        samples.check(data, iter)
    assert f"sample 1 of {root}/train" in str(caught.value)
    assert f"{root}/val/label/0.npy should hold whole numbers" in str(caught.value)
