"""The scale of a panel: most curves fill it, and those that leave it are named."""

import numpy as np
import pytest

from domainbed_sage.results import scales

ERM, SAM, IIB = [2.5, 1.5, 1.0], [2.6, 1.7, 1.2], [5.4, 4.0, 3.2]
NAN, INF = float("nan"), float("inf")


def scale(leading="all", **curves):
    arrays = {name: np.array(values, float) for name, values in curves.items()}
    return scales.of_curves(arrays, arrays if leading == "all" else {name: arrays[name] for name in leading})


@pytest.mark.parametrize("worst", [1e11, INF, 10.0])
def test_a_curve_that_diverges_leaves(worst):
    found = scale(ERM=ERM, SAM=SAM, IIB=IIB, BOA=[2.4, 3.0, worst])
    assert (found.above, found.below, found.leaving) == (("BOA",), (), ("BOA",)) if worst > 10 else found is None


def test_the_scale_ends_at_the_curves_that_stay():
    found = scale(["ERM", "SAM"], ERM=ERM, SAM=SAM, IIB=[7.0, NAN, 3.2], BOA=[2.4, 8.0, 1e9])
    assert (found.low, found.high) == (1 - 0.05 * 6, 7 + 0.05 * 6)


@pytest.mark.parametrize(("level", "margin"), [(2.0, 0.1), (0.0, 0.05)])
def test_a_scale_has_a_height(level, margin):
    found = scale(["A"], A=[level, level], B=[100.0, 1.0])
    assert (found.low, found.high) == (level - margin, level + margin)


def test_just_within_four_times_the_usual_maximum():
    assert scale(ERM=ERM, SAM=ERM, BOA=[1, 1, 10.0]) is None
    assert scale(ERM=ERM, SAM=ERM, BOA=[1, 1, 10.01]).above == ("BOA",)


def test_downwards_as_upwards():
    found = scale(ERM=ERM, SAM=ERM, GGA=ERM, SAGE=ERM, A=[1, -6.49], B=[1, -6.51], C=[-7, 90])
    assert (found.above, found.below) == (("C",), ("B", "C"))
    assert found.leaving == ("C", "B")


def test_of_two_the_one_nearer_to_nothing_decides():
    assert scale(ERM=ERM, BOA=[2.4, 3.0, 1e11]).above == scale(BOA=[2.4, 3.0, 1e11], ERM=ERM).above == ("BOA",)


def test_the_leading_curves_decide():
    pale = {f"p{at}": [100.0, 90.0] for at in range(5)}
    assert scale(["ERM", "SAM"], ERM=ERM, SAM=SAM, **pale).above == tuple(pale)
    assert scale(ERM=ERM, SAM=SAM, **pale) is None


@pytest.mark.parametrize("curves", [{}, {"A": []}, {"A": [NAN]}, {"A": [0.0, 0.0]}, {"A": [NAN, 2.0], "B": [3.0]}])
def test_nothing_leaves(curves):
    assert scale(**curves) is None


def test_levels_that_differ_little_stay_together():
    """Whatever the range of a curve: flat ones may be many of their ranges apart."""
    assert scale(A=[0.15, 0.1501], B=[0.3, 0.3001]) is None
