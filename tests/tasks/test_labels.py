"""Losses, accuracy and calibration of labels, against their definitions written out."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from domainbed_sage.core.errors import UserError
from domainbed_sage.tasks import Attribute, Classification


def logits(N, C, seed=0):
    return 2 * torch.randn(N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(N, C, seed=1):
    return torch.randint(C, (N,), generator=torch.Generator().manual_seed(seed))


def measured(task, *batches):
    meter = task.meter()
    for batch in batches:
        meter.update(*batch)
    return meter.compute()


def by_definition(p, y, bins):
    """Accuracy in percent, Brier score, calibration error; one image after the other."""
    hits, brier, members = 0, 0.0, [[] for _ in range(bins)]
    for row, label in zip(p.tolist(), y.tolist(), strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        hits += best == label
        brier += sum((value - (c == label)) ** 2 for c, value in enumerate(row))
        members[math.ceil(row[best] * bins) - 1].append((row[best], best == label))
    ece = sum(abs(sum(conf for conf, _ in b) - sum(hit for _, hit in b)) for b in members)
    return {"accuracy": 100 * hits / len(y), "brier": brier / len(y), "ece": ece / len(y)}


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_classification_is_its_definition(bins):
    x, y = logits(200, 5), labels(200, 5)
    task = Classification("digit", 5, bins)
    expected = by_definition(x.softmax(1), y, bins)
    assert measured(task, (x, y)) == pytest.approx(expected)
    assert measured(task, (x[:30], y[:30]), (x[30:], y[30:])) == pytest.approx(expected)
    for target in (y, y.int()):
        assert task.loss(x, target).item() == pytest.approx(-x.log_softmax(1)[torch.arange(200), y].mean().item())


def test_attribute_is_a_classification_of_two():
    x, y = logits(200, 1), labels(200, 2)
    two = torch.cat([torch.zeros_like(x), x], 1)
    task, other = Attribute("smiling"), Classification("smiling", 2)
    assert measured(task, (x, y)) == pytest.approx(measured(other, (two, y)))
    assert measured(task, (x, y)) == pytest.approx(by_definition(two.softmax(1), y, 10))
    for target in (y, y.double()):
        assert task.loss(x, target).item() == pytest.approx(F.cross_entropy(two, y).item())


@pytest.mark.parametrize(("confidence", "ece"), [(0.75, (1.5 - 1) / 2), (0.76, (0.24 + 0.75) / 2)])
def test_bins_are_closed_above(confidence, ece):
    """Of four bins, 0.75 lies in the third, where a hit and a miss even out, and 0.76 in the last, alone."""
    p = torch.tensor([[confidence, 1 - confidence], [0.75, 0.25]], dtype=torch.float64)
    found = measured(Classification("c", 2, 4), (p.log(), torch.tensor([0, 1])))
    assert found["ece"] == pytest.approx(ece)


def test_the_first_bin_is_alone():
    """Of 20 bins, 0.04 lies in the first and 0.06 in the second: a hit and a miss that do not even out."""
    confidence = torch.tensor([[0.04], [0.06]], dtype=torch.float64)
    p = torch.cat([confidence, (1 - confidence).expand(2, 99) / 99], 1)
    found = measured(Classification("c", 100, 20), (p.log(), torch.tensor([0, 1])))
    assert found["ece"] == pytest.approx((0.96 + 0.06) / 2)


def test_certain_predictions():
    x = torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    assert measured(Classification("c", 2), (x, torch.tensor([0, 1]))) == {"accuracy": 100, "brier": 0, "ece": 0}
    assert measured(Classification("c", 2), (x, torch.tensor([1, 0]))) == {"accuracy": 0, "brier": 2, "ece": 1}


@pytest.mark.parametrize(("task", "channels"), [(Classification("c", 4), 4), (Attribute("a"), 1)])
def test_nothing_is_read_and_shapes_are_checked(task, channels):
    x, y = logits(6, channels), labels(6, 2)
    assert task.channels == channels
    assert task.meter().higher_is_better == {"accuracy": True, "brier": False, "ece": False}
    assert list(measured(task, (x, y))) == ["accuracy", "brier", "ece"]
    assert task.loss(x.float(), y).dtype == torch.float32
    assert task.loss(x.to("meta"), y.to("meta")).device.type == "meta"
    task.meter().update(x.to("meta"), y.to("meta"))
    for wrong in (y[:1], y[:, None]):
        for call in (task.loss, task.meter().update):
            with pytest.raises(UserError, match=f"target of {task.name} should have the shape"):
                call(x, wrong)
    with pytest.raises(UserError, match=f"measure {task.name} on"):
        task.meter().compute()
    empty = task.meter()
    empty.update(x[:0], y[:0])
    with pytest.raises(UserError, match=f"measure {task.name} on"):
        empty.compute()
    assert np.isnan(measured(task, (x * torch.nan, y))["brier"])
    assert task.loss(x[:1], y[:1]).ndim == 0
    assert task.bins == 10


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Classification("c", 1), "'c' should have at least 2 classes. Found 1"),
        (lambda: Classification("c", 2, 0), "at least one bin. Found 0"),
        (lambda: Attribute("a", 0), "at least one bin. Found 0"),
    ],
)
def test_what_is_no_task(make, said):
    with pytest.raises(UserError, match=said):
        make()
