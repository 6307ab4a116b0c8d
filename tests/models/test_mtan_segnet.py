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
from domainbed_sage.geometry.vectors import gram
from domainbed_sage.models.mtan_segnet import mtan_segnet
from domainbed_sage.tasks import Depth, Normals, Segmentation

FOLDER = Path(__file__).parents[1] / "data" / "mtl"
RECORDED = np.load(FOLDER / "mtan_segnet.npz")
SHAPES = json.loads((FOLDER / "mtan_segnet.json").read_text())
TASKS = {"nyuv2": (Segmentation(13), Depth(), Normals()), "cityscapes": (Segmentation(7), Depth())}
COUNTS = {  # all, code_shared, shared
    "nyuv2": (44_229_073, 44_117_184, 35_163_456),
    "cityscapes": (41_206_984, 41_132_608, 35_163_456),
}
MEANS = ("encoder_block.0.1.running_mean", "conv_block_dec.0.1.running_mean")


def recorded(data, key):
    return torch.from_numpy(RECORDED[f"{data}/{key}"])


@cache
def untouched(data):
    """The full network; nothing may change it."""
    with torch.device("meta"):
        return mtan_segnet(TASKS[data])


def with_ruled_weights(data):
    model = mtan_segnet(TASKS[data]).double()
    for i, p in enumerate(model.parameters()):
        wave = torch.sin(0.7 * torch.arange(p.numel(), dtype=torch.float64) + i).reshape(p.shape)
        fan_in = math.prod(p.shape[1:])
        p.data = wave * math.sqrt(2 / fan_in) if p.ndim == 4 else 0.1 * wave
    for norm in model.batch_norms():
        norm.weight.data += 1
    return model


def assert_predictions(data, kind, predictions):
    for k, prediction in enumerate(predictions):
        found = prediction.detach()[..., ::4, ::4]
        torch.testing.assert_close(found, recorded(data, f"{kind}/pred{k}"), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("data", TASKS)
def test_names_and_shapes_in_order(data):
    found = {name: list(p.shape) for name, p in untouched(data).named_parameters()}
    assert list(found.items()) == list(SHAPES[data].items())
    assert sum(map(math.prod, found.values())) == COUNTS[data][0]


@pytest.mark.parametrize("data", TASKS)
def test_recorded_pass(data):
    """Predictions, losses, gradients, what they reach, their inner products, and running statistics."""
    model = with_ruled_weights(data)
    params = list(model.parameters())
    sizes = np.array([p.numel() for p in params])
    masks = {"all": (True,) * len(params), "code_shared": model.code_shared, "reached_by_all": model.shared}
    assert tuple(int(sizes[list(mask)].sum()) for mask in masks.values()) == COUNTS[data]
    assert np.array_equal(model.reached, RECORDED[f"{data}/reached"])

    predictions = model(recorded(data, "image"))
    assert_predictions(data, "train_mode", predictions)
    targets = [recorded(data, key) for key in ("label", "depth", "normal")[: len(predictions)]]
    losses = [task.loss(p, t) for task, p, t in zip(TASKS[data], predictions, targets, strict=True)]
    torch.testing.assert_close(torch.stack(losses).detach(), recorded(data, "losses"), rtol=1e-8, atol=0)

    keep = {"retain_graph": True, "materialize_grads": True}
    rows = [torch.autograd.grad(loss, params, **keep) for loss in losses]
    norms = torch.tensor([[g.norm().item() for g in row] for row in rows], dtype=torch.float64)
    largest = norms.max().item()
    torch.testing.assert_close(norms, recorded(data, "gradient_norms"), rtol=1e-8, atol=1e-8 * largest)
    for name, mask in masks.items():
        G = gram([tuple(g for g, has in zip(row, mask, strict=True) if has) for row in rows])
        torch.testing.assert_close(G, recorded(data, f"gram_{name}"), rtol=1e-8, atol=0)

    state = model.state_dict()
    for key in MEANS:
        torch.testing.assert_close(state[key], recorded(data, f"after_one_pass/{key}"), rtol=1e-8, atol=1e-8)
    with torch.no_grad():
        assert_predictions(data, "eval_mode_after_one_pass", model.eval()(recorded(data, "image")))


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
