"""MTAN on SegNet repeats what was recorded from its authors' code in float64.

`mtan_segnet.npz` has predictions at every fourth row and column, all the rest as recorded; `mtan_segnet.json` has names
and shapes of the parameters. The weights follow a rule: of the i-th parameter, the j-th value is a function of
sin(0.7 j + i).
"""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.models.mtan_segnet import mtan_segnet
from domainbed_sage.tasks import Depth, Normals, Segmentation
from domainbed_sage.training.replays.mtan import Pass

FOLDER = Path(__file__).parents[1] / "data" / "mtl"
RECORDED = dict(np.load(FOLDER / "mtan_segnet.npz"))
SHAPES = {
    data: [(p["name"], p["shape"]) for p in recorded["parameters"]]
    for data, recorded in json.loads((FOLDER / "mtan_segnet.json").read_text())["datasets"].items()
}
TASKS = {"nyuv2": (Segmentation(13), Depth(), Normals()), "cityscapes": (Segmentation(7), Depth())}
COUNTS = {  # all, code_shared, shared
    "nyuv2": (44_229_073, 44_117_184, 35_163_456),
    "cityscapes": (41_206_984, 41_132_608, 35_163_456),
}


@cache
def untouched(data):
    """The full network; nothing may change it."""
    with torch.device("meta"):
        return mtan_segnet(TASKS[data])


@pytest.mark.parametrize("data", TASKS)
def test_names_and_shapes_in_order(data):
    found = {name: list(p.shape) for name, p in untouched(data).named_parameters()}
    assert list(found.items()) == SHAPES[data]
    assert sum(map(math.prod, found.values())) == COUNTS[data][0]


@pytest.mark.parametrize("data", TASKS)
def test_recorded_pass(data):
    """Predictions, losses, gradients, what they reach, their inner products, and running statistics."""
    one = Pass(data, RECORDED)
    sizes = np.array([p.numel() for p in one.model.parameters()])
    masks = ((True,) * len(sizes), one.model.code_shared, one.model.shared)
    assert tuple(int(sizes[list(mask)].sum()) for mask in masks) == COUNTS[data]
    found = one.distances()
    assert len(found) == 9
    assert {what: off for what, off in found.items() if not off <= 1e-10} == {}


def test_initialisation():
    """Xavier's deviation sqrt(2 / (fan in + fan out)), biases 0, gains 1."""
    torch.manual_seed(0)
    for name, p in mtan_segnet(TASKS["cityscapes"], width=16).named_parameters():
        if p.ndim == 4:
            out, rest, *kernel = p.shape
            expected = math.sqrt(2 / ((out + rest) * math.prod(kernel)))
            assert p.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * p.numel())), name
        else:
            assert (p == (1 if name.endswith("weight") else 0)).all(), name


@pytest.mark.parametrize("width", [1, 8])
def test_width_is_that_of_all_stages(width):
    found = [tuple(p.shape) for p in mtan_segnet(TASKS["nyuv2"], width=width).parameters()]
    full = [tuple(p.shape) for p in untouched("nyuv2").parameters()]
    assert found == [tuple(n if n in (1, 3, 13) else n * width // 64 for n in shape) for shape in full]


def test_images_that_do_not_halve_five_times():
    with pytest.raises(UserError, match=r"multiples of 32. Found 32 x 48"):
        mtan_segnet(TASKS["nyuv2"], width=1)(torch.zeros(1, 3, 32, 48))


def test_width_is_a_hyperparameter():
    with pytest.raises(UserError, match=r"'width' should be a whole number ≥ 1"):
        validate(declared(mtan_segnet), {"width": 0})
