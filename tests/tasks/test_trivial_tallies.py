"""The predictor that does not look at the image, against a literal one, and where pixels or classes never occur."""

import numpy as np
import pytest
import torch

from domainbed_sage.tasks import Attribute, Classification, Depth, Normals, Segmentation


def constant(task, *batches):
    return task.trivial(sum(task.tally(batch) for batch in batches))


def test_the_most_frequent_class_of_each_pixel():
    labels = torch.randint(-1, 4, (9, 5, 6), generator=torch.Generator().manual_seed(0))
    found = constant(Segmentation(4), labels[:4], labels[4:]).argmax(0)
    everywhere = np.bincount(labels[labels >= 0], minlength=4)
    for i, j in np.ndindex(5, 6):
        counts = np.bincount([y for y in labels[:, i, j].tolist() if y >= 0], minlength=4)
        best = [c for c in range(4) if counts[c] == counts.max()]
        assert found[i, j] == max(best, key=lambda c: everywhere[c]), (i, j)


def test_a_pixel_without_a_class_gets_the_most_frequent_of_all():
    labels = torch.tensor([[[-1, 2, 2, 1]]])
    assert constant(Segmentation(3), labels).argmax(0).tolist() == [[2, 2, 2, 1]]


def test_the_mean_depth_of_each_pixel():
    first, second = torch.tensor([[[[1.0, 0.0, 0.0]]], [[[3.0, 6.0, 0.0]]]]).split(1)
    assert constant(Depth(), first, second).tolist() == [[[2.0, 6.0, pytest.approx(10 / 3)]]]


def test_depths_that_are_all_unknown():
    assert constant(Depth(), torch.zeros(2, 1, 1, 3)).tolist() == [[[0.0, 0.0, 0.0]]]


def test_the_mean_direction_of_each_pixel():
    one, other, none = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]
    normals = torch.tensor([[one, one, none], [other, none, none]]).movedim(-1, 1)[:, :, None]
    found = constant(Normals(), normals)
    half = 0.5**0.5
    expected = [[half, half, 0], [1, 0, 0], [2 / 5**0.5, 1 / 5**0.5, 0]]
    assert found[:, 0].T.numpy() == pytest.approx(np.array(expected))


def test_the_frequencies_of_labels():
    task, labels = Classification("digit", 4), torch.tensor([0, 2, 2, 3])
    assert constant(task, labels[:1], labels[1:]).softmax(0).tolist() == pytest.approx([0.25, 0, 0.5, 0.25])


def test_the_frequency_of_an_attribute():
    found = constant(Attribute("hat"), torch.tensor([1, 0]), torch.tensor([0, 0]))
    assert found.sigmoid().tolist() == pytest.approx([0.25])


@pytest.mark.parametrize(
    ("task", "target"),
    [
        (Segmentation(3), torch.zeros(2, 4, 5, dtype=torch.long)),
        (Depth(), torch.ones(2, 1, 4, 5)),
        (Normals(), torch.ones(2, 3, 4, 5)),
        (Classification("digit", 4), torch.tensor([0, 1])),
        (Attribute("hat"), torch.tensor([0, 1])),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_it_has_the_shape_of_a_prediction(task, target):
    assert task.tally(target).dtype == torch.float64
    prediction = constant(task, target).float()
    assert prediction.shape[0] == task.channels
    assert torch.isfinite(task.loss(prediction.expand(2, *prediction.shape), target)) or task.name == "digit"
