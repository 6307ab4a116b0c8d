"""Losses and metrics of scenes: recorded ones of the authors' codes, and what is done where nothing is valid."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from domainbed_sage.core.errors import UserError
from domainbed_sage.tasks import Attribute, Classification, Crop, Depth, Normals, Segmentation
from domainbed_sage.tasks.scene_meters import BINS
from domainbed_sage.training.replays.scenes import COLUMNS, Predictions, measured

FOLDER = Path(__file__).parents[1] / "data" / "mtl"
RECORDED = {name: dict(np.load(FOLDER / f"{name}.npz")) for name in ("metrics", "metrics_absent_class")}
TASKS = {"nyuv2": (Segmentation(13), Depth(), Normals()), "cityscapes": (Segmentation(7), Depth())}
CASES = [(file, data) for file in RECORDED for data in TASKS]


def pairs(file, data, task):
    """Predictions and targets of all batches."""
    return iter(Predictions(data, RECORDED[file]).pairs(task))


def unit(*shape, seed=0):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(("file", "data"), CASES)
def test_recorded_losses_and_metrics(file, data):
    """Over batches, over all as one batch, and over pixels, which does not depend on batches."""
    recorded = Predictions(data, RECORDED[file])
    assert recorded.tasks == TASKS[data]
    found = {what: (off, tolerance) for what, off, tolerance in recorded.distances()}
    figures = COLUMNS[: 9 if data == "nyuv2" else 4]
    assert {"losses", "miou_present", "Δm", *figures} <= set(found)
    assert {f"{name}_pixels" for name in figures[2:]} == {what.split(",")[0] for what in found if "_pixels" in what}
    for what, (off, tolerance) in found.items():
        assert off <= (90 / BINS if "degrees" in what else 1e-12) <= tolerance, what
    assert np.isnan(recorded.metrics()["miou"]) == (file == "metrics_absent_class")


@pytest.mark.parametrize(("file", "data"), CASES)
def test_pixels_count_alike_in_one_batch(file, data):
    split, whole = (Predictions(data, RECORDED[file]).metrics(joined=joined) for joined in (False, True))
    for name in [name for name in split if name.endswith("_pixels")]:
        assert whole[name] == pytest.approx(split[name], rel=1e-12)
    assert any(whole[name] != pytest.approx(split[name], rel=1e-6) for name in COLUMNS[2:] if name in split)


@pytest.mark.parametrize("valid", [1, 2, 5, 6])
def test_medians(valid):
    """Of an even number of pixels, the mean of the two in the middle; invalid pixels do not enter."""
    prediction, target = unit(1, 3, 1, 8), unit(1, 3, 1, 8, seed=1)
    target[..., valid:] = 0
    angles = np.degrees(np.arccos((prediction * target).sum(1).flatten()[:valid].numpy()))
    found = measured(Normals(), [(prediction, target)])
    assert found["median"] == pytest.approx(np.median(angles))
    assert found["median_pixels"] == pytest.approx(np.median(angles), abs=90 / BINS)


def test_shares_are_of_what_is_strictly_below():
    bounds = torch.tensor([11.25, 22.5, 30.0], dtype=torch.float64).deg2rad()
    target = torch.zeros(1, 3, 1, 3, dtype=torch.float64)
    target[:, 0] = 1
    for nudge, expected in ((1e-9, [0, 100 / 3, 200 / 3]), (-1e-9, [100 / 3, 200 / 3, 100])):
        a = bounds + nudge
        prediction = torch.stack([a.cos(), a.sin(), 0 * a])[None, :, None]
        found = measured(Normals(), [(prediction, target)])
        assert [found[name] for name in ("w11", "w22", "w30")] == pytest.approx(expected)


def nothing_valid(task):
    """A prediction, and a target without a valid pixel."""
    prediction = unit(2, task.channels, 4, 5).log_softmax(1) if task.channels == 13 else unit(2, task.channels, 4, 5)
    target = torch.full((2, 4, 5), -1) if task.channels == 13 else torch.zeros_like(prediction)
    return prediction.requires_grad_(), target


@pytest.mark.parametrize("task", TASKS["nyuv2"], ids=lambda task: task.name)
def test_batch_without_a_valid_pixel(task):
    """Its loss and gradient are 0, the mean over batches does not count it, and alone it is nothing to measure."""
    empty = nothing_valid(task)
    loss = task.loss(*empty)
    (gradient,) = torch.autograd.grad(loss, empty[0])
    assert loss.item() == 0
    assert (gradient == 0).all()
    batches = list(pairs("metrics", "nyuv2", task))
    assert measured(task, [batches[0], empty, *batches[1:]]) == pytest.approx(measured(task, batches), rel=1e-15)
    for seen in ([], [empty]):
        with pytest.raises(UserError, match=f"measure {task.name} on"):
            measured(task, seen)


@pytest.mark.parametrize("task", TASKS["nyuv2"][1:], ids=lambda task: task.name)
def test_prediction_that_is_nan_is_not_hidden(task):
    prediction, target = next(pairs("metrics", "nyuv2", task))
    prediction = torch.full_like(prediction, torch.nan)
    assert task.loss(prediction, target).isnan()
    found = measured(task, [(prediction, target)])
    assert np.isnan(found["mean" if task.name == "normals" else "relerr"])
    if task.name == "normals":
        assert (found["median"], found["median_pixels"], found["w30"]) == (180, pytest.approx(179.995), 0)


@pytest.mark.parametrize("data", TASKS)
def test_losses_are_a_mean_over_valid_pixels(data):
    """Invalid pixels have no gradient, and equal pixels equal ones."""
    for task in TASKS[data]:
        prediction, target = next(pairs("metrics", data, task))
        (g,) = torch.autograd.grad(task.loss(prediction.requires_grad_(), target), prediction)
        per_pixel = target.sum(1) != 0 if task.name != "segmentation" else target != -1
        assert (g.abs().sum(1)[~per_pixel] == 0).all()
        sizes = {"segmentation": g.sum(1), "depth": g.abs().sum(1), "normals": g.square().sum(1).sqrt()}[task.name]
        expected = torch.tensor(1 / per_pixel.sum().item(), dtype=torch.float64)
        torch.testing.assert_close(sizes[per_pixel].abs(), expected.expand(int(per_pixel.sum())))


@pytest.mark.parametrize("task", TASKS["nyuv2"], ids=lambda task: task.name)
def test_dtype_and_device_are_those_of_the_input_and_nothing_is_read(task):
    """On the meta device nothing can be read; labels may be floats, as files have them."""
    prediction, target = (x.float() for x in next(pairs("metrics", "nyuv2", task)))
    assert task.loss(prediction, target).dtype == torch.float32
    meter = task.meter()
    for _ in range(2):
        assert task.loss(prediction.to("meta"), target.to("meta")).device.type == "meta"
        meter.update(prediction.to("meta"), target.to("meta"))


@pytest.mark.parametrize("task", TASKS["nyuv2"], ids=lambda task: task.name)
def test_shapes_that_would_be_broadcast(task):
    prediction, target = next(pairs("metrics", "nyuv2", task))
    for wrong in (target[:1], target[..., :1], target[:, None]):
        for call in (task.loss, task.meter().update):
            with pytest.raises(UserError, match=f"target of {task.name} should have the shape"):
                call(prediction, wrong)


@pytest.mark.parametrize("label", [-2, 13])
def test_a_label_that_is_no_class_is_not_counted_as_another(label):
    prediction, target = next(pairs("metrics", "nyuv2", Segmentation(13)))
    target[0, 0, 0] = label
    prediction[0, 5, 0, 0] = 1  # 13 * 13 + 5 and -2 * 13 + 5 are no places of the matrix
    for call in (Segmentation(13).loss, Segmentation(13).meter().update):
        with pytest.raises(IndexError):
            call(prediction, target)


def test_metrics_have_directions():
    for task in TASKS["nyuv2"]:
        assert list(measured(task, pairs("metrics", "nyuv2", task))) == list(task.meter().higher_is_better)
    directions = {name: up for task in TASKS["nyuv2"] for name, up in task.meter().higher_is_better.items()}
    recorded = RECORDED["metrics"]["nyuv2/higher_is_better"].astype(bool).tolist()
    assert [directions[name] for name in COLUMNS] == recorded


@pytest.mark.parametrize("valid", [1, 2])
@pytest.mark.parametrize("task", TASKS["nyuv2"], ids=lambda task: task.name)
def test_few_valid_pixels(task, valid):
    """They count like any others: losses and means are theirs alone."""
    prediction, target = next(pairs("metrics", "nyuv2", task))
    none = -1 if task.name == "segmentation" else 0
    pixels = (target != -1 if none else target.sum(1) != 0).nonzero()[:valid]
    few, losses, metrics = torch.full_like(target, none), [], []
    for n, row, column in pixels.tolist():
        here = (slice(n, n + 1), ..., slice(row, row + 1), slice(column, column + 1))
        few[here], alone = target[here], (prediction[here], target[here])
        losses.append(task.loss(*alone).item())
        metrics.append(measured(task, [alone]))
    assert task.loss(prediction, few).item() == pytest.approx(np.mean(losses))
    found = measured(task, [(prediction, few)])
    for name in ("pixacc", "abserr", "relerr", "mean", "median", "w30"):
        if name in found:
            assert found[name] == pytest.approx(np.mean([m[name] for m in metrics]))


def test_tasks_are_values():
    assert [task.channels for task in (*TASKS["nyuv2"], Segmentation(2))] == [13, 1, 3, 2]
    assert Segmentation(13) == Segmentation(13) != Segmentation(7)
    assert len({Depth(), Depth(), Normals()}) == 2
    with pytest.raises(UserError, match=r"at least 2 classes. Found 1"):
        Segmentation(1)


@pytest.mark.parametrize("sign", [1, -1])
def test_angles_of_equal_and_opposite_normals_in_float32(sign):
    """Rounding makes some of the products larger than 1, which have no angle."""
    target = unit(2, 3, 20, 20).float()
    target /= target.norm(dim=1, keepdim=True)
    assert (target.square().sum(1) > 1).any()
    found = measured(Normals(), [(sign * target, target)])
    assert found["mean"] == pytest.approx(0 if sign == 1 else 180, abs=0.05)


def test_normals_whose_components_sum_to_0_are_ignored():
    """As in the authors' codes."""
    target = torch.tensor([0.5, -0.5, 0.0])[:, None, None].expand(1, 3, 2, 2)
    assert Normals().loss(-target, target) == 0
    with pytest.raises(UserError, match="measure normals on"):
        measured(Normals(), [(-target, target)])


def test_sums_over_pixels_are_exact():
    """In float32 2²⁵ + 3 is 2²⁵ + 4."""
    target = torch.tensor([2.0**25, 1.0, 1.0, 1.0]).reshape(1, 1, 2, 2)
    assert 4 * measured(Depth(), [(0 * target, target)])["abserr_pixels"] == 2**25 + 3


def test_shapes_are_named():
    with pytest.raises(UserError, match=r"shape \[2, 1, 4, 5\], as its prediction has it\. Found \[1, 1, 4, 5\]"):
        Depth().loss(torch.zeros(2, 1, 4, 5), torch.zeros(1, 1, 4, 5))


def test_nothing_is_left_on_the_cpu():
    """On a GPU that need not be there: operations on two devices are refused."""
    with FakeTensorMode():
        x, crop = torch.empty(2, 3, 12, 16, device="cuda"), Crop(1.2, 1, 2, True)
        for moved in (crop.image(x), crop.labels(x), crop.depth(x), crop.normals(x)):
            assert moved.device == x.device
        labels = x[:, 0, 0, 0].long()
        for task, prediction, target in (
            *((Depth(), x[:, :1], x[:, :1]), (Normals(), x, x), (Segmentation(3), x, x[:, 0])),
            *((Classification("c", 3), x[..., 0, 0], labels), (Attribute("a"), x[:, :1, 0, 0], labels)),
        ):
            assert task.loss(prediction, target).device == x.device
            meter = task.meter()
            for _ in range(2):
                meter.update(prediction, target)
