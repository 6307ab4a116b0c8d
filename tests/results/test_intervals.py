"""Errors and tests of means: how often they reject a true hypothesis, and equality with one case after the other."""

import math

import numpy as np
import pandas as pd
import pytest

from domainbed_sage.results import compare
from domainbed_sage.results.intervals import error_of_like_these, error_of_these, half_width, half_width_of, p_value

SIZES = (4, 4, 4, 4, 6)
REPETITIONS = 6000


def differences(centred, seed=0, trials=3):
    """Simulated differences of two equal methods, [repetitions, datasets, trials], points.

    A method may suit a dataset or an environment (0.45 and 0.5), trainings vary by 0.55 each, and splits by 0.15.
    `centred`: the methods are equal on average over these very datasets; otherwise over all datasets like these.
    """
    rng = np.random.default_rng(seed)
    own = math.sqrt(2) * rng.normal(0, 0.45, (REPETITIONS, len(SIZES)))
    means, truth = [], []
    for at, n in enumerate(SIZES):
        envs = math.sqrt(2) * rng.normal(0, 0.5, (REPETITIONS, n, 1))
        noise = math.sqrt(2) * rng.normal(0, 0.55, (REPETITIONS, n, trials))
        split = rng.normal(0, 0.15, (REPETITIONS, 1, trials))
        means.append((own[:, at, None, None] + envs + noise + split).mean(axis=1))
        truth.append(own[:, at, None] + envs.mean(axis=1))
    return np.stack(means, axis=1) - (np.mean(truth, axis=0)[:, None] if centred else 0)


def rejected(x, question):
    """How often p is below 0.05."""
    error = error_of_these(x) if question == "these" else error_of_like_these(x.mean(axis=2))
    return (p_value(x.mean(axis=(1, 2)), error) < 0.05).mean()


@pytest.mark.parametrize("trials", [2, 3])
def test_equal_methods_are_told_apart_as_often_as_the_level_says(trials):
    assert 0.03 < rejected(differences(centred=True, trials=trials), "these") < 0.07
    assert 0.03 < rejected(differences(centred=False, trials=trials), "like") < 0.07


def test_neither_question_answers_the_other():
    """On datasets like these, the first test would see a difference half of the time where there is none."""
    assert rejected(differences(centred=False), "these") > 0.4
    assert rejected(differences(centred=True), "like") < 0.01


def test_intervals_cover_the_truth():
    """The true mean is 0, of five datasets and of one, whose variances differ."""
    x = np.random.default_rng(1).normal(0, [[1], [1], [2], [1], [0.5]], (REPETITIONS, 5, 3))
    for groups in (x, x[:, :1]):
        covered = np.abs(groups.mean(axis=(1, 2))) <= half_width(error_of_these(groups))
        assert 0.93 < covered.mean() < 0.97


def test_many_at_once_equal_one_after_the_other():
    x = differences(centred=False)[:20]
    x[3, 2, 1] = np.nan
    for question, test in (("these", compare.of_these), ("like", compare.of_like_these)):
        for one in x:
            frame = pd.DataFrame(one)
            found, why = test(frame if question == "these" else frame.mean(axis=1))
            assert why == ""
            error = error_of_these(one) if question == "these" else error_of_like_these(np.nanmean(one, axis=1))
            assert (found.se, found.df) == pytest.approx((float(error.se), float(error.df)))
    assert error_of_these(x).df.tolist() == [9 if at == 3 else 10 for at in range(20)]


def test_error_of_these_by_hand():
    """Variances 0.5 of two trials and 1 of three; a dataset of one trial leaves no error."""
    groups = [[0.0, 1.0, math.nan], [1.0, 2.0, 3.0]]
    error = error_of_these(groups)
    assert (float(error.se), float(error.df)) == pytest.approx((math.sqrt(0.5 / 2 + 1 / 3) / 2, 3))
    assert half_width_of([[0.0, 1.0], [1.0, 2.0, 3.0]]) == pytest.approx(3.182446305284263 * float(error.se))
    lonely = error_of_these([[0.0, math.nan], [1.0, 2.0]])
    assert math.isnan(float(lonely.se))
    assert math.isnan(half_width_of([[0.0], [1.0, 2.0]]))
    assert math.isnan(half_width_of([]))
