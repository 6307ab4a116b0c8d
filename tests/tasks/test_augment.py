"""Random crops of scenes: the authors' pixels, and what follows from their definition."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from domainbed_sage.core.errors import UserError
from domainbed_sage.tasks import Crop, Depth
from domainbed_sage.tasks.scenes import cropped
from domainbed_sage.training.replays.scenes import measure_crops

RECORDED = dict(np.load(Path(__file__).parents[1] / "data" / "mtl" / "augmentation.npz"))


def test_recorded_pixels():
    """Those of labels and depth exactly."""
    found = {row.what: row for row in measure_crops({}, RECORDED)}
    kinds = {"nyuv2": ("image", "label", "depth", "normal"), "cityscapes": ("image", "label", "depth")}
    assert set(found) == {f"{data}: {kind}" for data, there in kinds.items() for kind in there}
    for what, row in found.items():
        assert row.cases == 6
        assert row.deviation <= (0 if what.endswith(("label", "depth")) else 1e-13), what


def test_recorded_draws_are_of_every_scale_and_both_directions():
    draws = [RECORDED[key].tolist() for key in RECORDED if key.endswith("/draws")]
    assert {scale for scale, *_ in draws} == {1.0, 1.2, 1.5}
    assert {flipped for *_, flipped, _ in draws} == {0, 1}
    assert all(flipped == (uniform < 0.5) for *_, flipped, uniform in draws)


@pytest.mark.parametrize("scale", [1.0, 1.2, 1.5])
def test_nearest_pixels_are_those_of_torch(scale):
    """Also of whole numbers, which torch does not resize, and for every size of NYU-v2 and Cityscapes and below."""
    for size in (*range(1, 200), 256, 288, 384):
        if int(size / scale):
            source = torch.arange(size)
            found = Crop(scale, 0, 0, False).labels(source[None].expand(size, size))
            cut = source[: int(size / scale)].double()
            expected = F.interpolate(cut.expand(1, 1, len(cut), len(cut)), (size, size), mode="nearest")[0, 0]
            assert torch.equal(found, expected.long())


def test_same_shape_dtype_and_batches():
    crop, x = Crop(1.2, 1, 2, True), torch.rand(2, 3, 12, 16)
    for move in (crop.image, crop.labels, crop.depth, crop.normals):
        assert move(x).shape == x.shape
        assert move(x).dtype == x.dtype
        assert torch.equal(move(x)[1], move(x[1]))
        assert move(x.to("meta")).device.type == "meta"


def test_whole_scene_flipped_twice_is_itself():
    x, crop = torch.rand(3, 6, 8), Crop(1.0, 0, 0, True)
    for move in (crop.image, crop.labels, crop.depth, crop.normals):
        assert torch.equal(move(move(x)), x)
        assert not torch.equal(move(x), x)
    assert torch.equal(crop.normals(x)[0], -x[0].flip(-1))
    assert torch.equal(crop.normals(x)[1:], x[1:].flip(-1))


def test_every_crop_is_drawn_equally_often():
    """From a grid of uniform numbers: all scales, all places of the rectangle, and half are flipped."""
    grid = [(i + 0.5) / 24 for i in range(24)]
    drawn = [
        Crop.of((u, v, w, f), 6, 8) for u in (0, 0.4, 0.99) for v in grid for w in grid for f in (0.1, 0.499, 0.5, 0.9)
    ]
    counts = {scale: [c for c in drawn if c.scale == scale] for scale in (1.0, 1.2, 1.5)}
    assert [len(crops) for crops in counts.values()] == [len(drawn) // 3] * 3
    assert {(c.top, c.left) for c in counts[1.0]} == {(0, 0)}
    for scale, rows, columns in ((1.2, 2, 3), (1.5, 3, 4)):
        places = [(c.top, c.left) for c in counts[scale]]
        assert {places.count((i, j)) for i in range(rows) for j in range(columns)} == {len(places) // rows // columns}
    assert sum(c.flipped for c in drawn) == len(drawn) // 2


@pytest.mark.parametrize("numbers", [(0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 1.0), (-0.1, 0, 0, 0), (0, 0, float("nan"), 0)])
def test_numbers_that_are_no_draws(numbers):
    with pytest.raises(UserError, match="takes 4 numbers in"):
        Crop.of(numbers, 6, 8)


def test_a_rectangle_without_columns():
    with pytest.raises(UserError, match="does not lie within 8 x 6 pixels"):
        Crop(7.0, 0, 0, False).labels(torch.zeros(8, 6))


def test_a_target_without_a_task_is_not_dropped():
    with pytest.raises(ValueError, match="longer"):
        cropped(torch.zeros(3, 6, 8), (torch.zeros(1, 6, 8),) * 2, (Depth(),), Crop(1.0, 0, 0, False))


@pytest.mark.parametrize(
    "crop",
    [
        Crop(1.2, 2, 0, False),
        Crop(1.2, 0, 3, False),
        Crop(1.2, -1, 0, False),
        Crop(0.9, 0, 0, False),
        Crop(7.0, 0, 0, False),
    ],
)
def test_rectangles_outside_the_scene(crop):
    with pytest.raises(UserError, match="does not lie within 6 x 8 pixels"):
        crop.labels(torch.zeros(6, 8))
