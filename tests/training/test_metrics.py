"""Measures from a confusion matrix, against their definitions written out image by image."""

import math
import random

import numpy as np
import pytest

from domainbed_sage.training.metrics import Scores


def literal(labels, predicted, num_classes):
    """Every measure by counting over a list of (label, prediction) pairs."""
    pairs = list(zip(labels, predicted, strict=True))
    recalls, f1s = [], []
    for c in range(num_classes):
        hits = sum(y == c and p == c for y, p in pairs)
        missed = sum(y == c and p != c for y, p in pairs)
        false = sum(y != c and p == c for y, p in pairs)
        recalls.append(hits / (hits + missed) if hits + missed else math.nan)
        f1s.append(2 * hits / (2 * hits + missed + false) if hits + missed + false else math.nan)
    return {
        "images": len(pairs),
        "accuracy": sum(y == p for y, p in pairs) / len(pairs) if pairs else math.nan,
        "class_images": [labels.count(c) for c in range(num_classes)],
        "class_accuracy": recalls,
        "class_f1": f1s,
        "macro_accuracy": mean_of_numbers(recalls),
        "macro_f1": mean_of_numbers(f1s),
        "confusion": [[pairs.count((i, j)) for j in range(num_classes)] for i in range(num_classes)],
    }


def mean_of_numbers(values):
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def assert_equal_to_literal(labels, predicted, num_classes):
    scores = Scores.of(np.array(labels, dtype=np.int64), np.array(predicted, dtype=np.int64), num_classes)
    for name, expected in literal(labels, predicted, num_classes).items():
        np.testing.assert_allclose(getattr(scores, name), expected, rtol=1e-15, atol=0, err_msg=name)


@pytest.mark.parametrize("seed", range(30))
def test_equals_the_definitions(seed):
    """Some classes have no image, some are never predicted, some neither."""
    rng = random.Random(seed)
    num_classes = rng.randint(1, 8)
    occurring, guessed = (rng.choices(range(num_classes), k=rng.randint(1, num_classes)) for _ in range(2))
    n = rng.randint(1, 40)
    assert_equal_to_literal(rng.choices(occurring, k=n), rng.choices(guessed, k=n), num_classes)


@pytest.mark.parametrize(
    ("labels", "predicted"), [([], []), ([1, 1], [1, 1]), ([0, 1, 2], [2, 0, 1]), ([0, 0, 0], [2, 2, 2])]
)
def test_no_images_and_extremes(labels, predicted):
    assert_equal_to_literal(labels, predicted, 4)


def test_a_case_by_hand():
    """Class 2 has no image but is predicted once: it counts for F1 and not for macro accuracy; class 3 for neither."""
    scores = Scores.of(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 2]), 4)
    assert (scores.accuracy, scores.images) == (0.5, 4)
    assert scores.macro_accuracy == pytest.approx((2 / 3 + 0) / 2)
    assert scores.macro_f1 == pytest.approx((4 / 5 + 0 + 0) / 3)
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert [math.isnan(value) for value in scores.class_accuracy] == [False, False, True, True]
    assert [math.isnan(value) for value in scores.class_f1] == [False, False, False, True]
