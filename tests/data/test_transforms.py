"""Transforms against Pillow and NumPy: sizes, crops, flips, resampling, colours, normalisation."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_sage.data.transforms import DataOptions, eval_transform, normalize, train_transform
from domainbed_sage.models.base import ImageSpec

SPEC = ImageSpec(24, (0.48, 0.45, 0.4), (0.27, 0.26, 0.25))
PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
ROUNDING = 1  # level: Pillow and torchvision round the two passes of a resampling differently


def picture(height=37, width=61):
    """Smooth colours, and a few edges, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, 127 + 127 * np.sin(x / 5)], -1)
    smooth[5:12, 8:20] = (250, 5, 5)
    return smooth.astype(np.uint8)


def tensor(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def pixels(image):
    return image.permute(1, 2, 0).numpy().astype(int)


def worst(ours, theirs):
    return np.abs(pixels(ours) - np.asarray(theirs).astype(int)).max()


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize("shape", [(37, 61), (61, 37), (24, 24), (12, 15)])
def test_the_evaluation_crop_is_pillows(interpolation, shape):
    """The short side becomes that of the model, the long one in proportion, rounded down; then the centre."""
    height, width = shape
    ours = eval_transform(DataOptions(interpolation=interpolation), SPEC)(tensor(picture(*shape)))
    short = min(shape)
    size = (int(SPEC.size * width / short), int(SPEC.size * height / short))
    resized = Image.fromarray(picture(*shape)).resize(size, PILLOW[interpolation])
    left, top = round((size[0] - SPEC.size) / 2), round((size[1] - SPEC.size) / 2)
    assert worst(ours, resized.crop((left, top, left + SPEC.size, top + SPEC.size))) <= ROUNDING


@pytest.mark.parametrize("interpolation", PILLOW)
def test_squashing_is_pillows(interpolation):
    ours = eval_transform(DataOptions(resize="squash", interpolation=interpolation), SPEC)(tensor(picture()))
    theirs = Image.fromarray(picture()).resize((SPEC.size, SPEC.size), PILLOW[interpolation])
    assert worst(ours, theirs) <= ROUNDING


def test_the_ways_of_resizing_differ():
    ways = [
        eval_transform(DataOptions(resize=resize, interpolation=interpolation), SPEC)(tensor(picture()))
        for resize in ("crop", "squash")
        for interpolation in PILLOW
    ]
    for i, one in enumerate(ways):
        for other in ways[:i]:
            assert worst(one, pixels(other)) > 5 * ROUNDING


def test_normalisation_is_that_of_the_model():
    batch = torch.stack([tensor(picture()), tensor(picture()[::-1])])
    mean, std = (np.array(values)[:, None, None] for values in (SPEC.mean, SPEC.std))
    np.testing.assert_allclose(normalize(SPEC)(batch), (batch.numpy() / 255 - mean) / std, atol=1e-6)


def coordinates():
    """An image that says where each of its pixels is: red x, green y."""
    y, x = np.mgrid[:200, :200]
    return tensor(np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8))


def test_training_crops_take_70_to_100_percent_and_flip_half_of_the_time():
    transform = train_transform(DataOptions(interpolation="bilinear"), ImageSpec(50, SPEC.mean, SPEC.std))
    torch.manual_seed(0)
    areas, ratios, mirrored = [], [], []
    for _ in range(150):
        image = pixels(transform(coordinates()))
        x, y = image[25, :, 0], image[:, 25, 1]
        step_x, step_y = (x[40] - x[10]) / 30, (y[40] - y[10]) / 30  # pixels of the original in one of the result
        width, height = 50 * abs(step_x), 50 * step_y
        areas.append(width * height / 200**2)
        ratios.append(width / height)
        mirrored.append(step_x < 0)
    assert 0.68 < min(areas) < 0.73
    assert 0.95 < max(areas) < 1.02
    assert 0.72 < min(ratios) < 0.85
    assert 1.18 < max(ratios) < 1.38
    assert 55 < sum(mirrored) < 95


def jittered(image, count=200):
    """Results of DomainBed's augmentation [count, 24, 24, 3]."""
    transform = train_transform(DataOptions(augment="domainbed", interpolation="bilinear"), SPEC)
    torch.manual_seed(0)
    return np.array([pixels(transform(tensor(image))) for _ in range(count)])


def test_domainbeds_brightness_and_contrast_are_factors_of_70_to_130_percent():
    """Of an image with two greys, which neither saturation nor hue changes, in any order of the two."""
    greys = np.full((40, 40, 3), 80, np.uint8)
    greys[:, 20:] = 140
    brightness, contrast = [], []
    for image in jittered(greys)[..., 0]:
        dark, light = image.min(), image.max()
        share = (image > (dark + light) / 2).mean()
        brightness.append(image.mean() / (80 + 60 * share))
        contrast.append((light - dark) / 60 / brightness[-1])
    for factors in (brightness, contrast):
        assert 0.66 < min(factors) < 0.76
        assert 1.24 < max(factors) < 1.36
        assert 0.95 < np.mean(factors) < 1.05


def test_domainbeds_hue_turns_by_up_to_108_degrees_and_one_in_ten_is_grey():
    red = np.full((40, 40, 3), 60, np.uint8)
    red[..., 0] = 120
    seen = jittered(red)[:, 12, 12] / 255
    colourful = seen.max(1) - seen.min(1)
    grey = colourful < 0.01
    assert 8 < grey.sum() < 36
    hues = np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in seen[~grey]])
    turned = np.minimum(hues, 1 - hues)
    assert 0.27 < turned.max() < 0.31
    assert 0.12 < turned.mean() < 0.18
    factors = colourful[~grey] * 255 / 60  # brightness, contrast and saturation, each from 0.7 to 1.3
    assert 0.33 < factors.min() < 0.6
    assert 1.4 < factors.max() < 2.2


def test_without_augmentation_training_is_evaluation():
    options = DataOptions(augment="none")
    image = tensor(picture())
    assert torch.equal(train_transform(options, SPEC)(image), eval_transform(options, SPEC)(image))
    assert not torch.equal(train_transform(DataOptions(), SPEC)(image), eval_transform(options, SPEC)(image))
