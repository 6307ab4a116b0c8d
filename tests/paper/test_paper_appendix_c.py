"""Appendix C's two domains by their numbers, and what is said where one of them is off."""

import itertools

import numpy as np
import pytest

from domainbed_sage.paper import appendix_c


@pytest.mark.parametrize(
    ("K", "ratio"), [(1, 1.357), (2, 1.357), (3, 1.28), (4, 1.22), (8, 1.11), (16, 1.06), (256, 1.004)]
)
def test_theorem_1_on_appendix_c(K, ratio):
    assert appendix_c.exact(K).ratio == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize("K", [1, 2, 5])
def test_the_enumeration_is_that_of_all_sequences(K):
    excess = []
    for signs in itertools.product((1, -1), repeat=K):
        H, b = sum(map(appendix_c.hessian, signs)) / K, sum(map(appendix_c.linear, signs)) / K
        theta = np.linalg.solve(H, b)
        mean = [(appendix_c.loss(theta, 1) + appendix_c.loss(theta, -1)) / 2 for theta in (theta, np.array([0.1, 0]))]
        excess.append(mean[0] - mean[1])
    own = appendix_c.exact(K)
    assert own.ratio * own.leading == pytest.approx(np.mean(excess))


def test_numbers_of_appendix_c():
    assert appendix_c.hessian(1) == pytest.approx(np.array([[10, 2], [2, 4.01]]))
    assert appendix_c.hessian(-1)[0, 1] == -2
    assert appendix_c.minimizer(0) == pytest.approx([0.1, 0])
    assert appendix_c.minimizer(1) == pytest.approx([0.000277, 0.498615], abs=5e-7)
    assert appendix_c.minimizer(-1) == pytest.approx([0.000277, -0.498615], abs=5e-7)
    assert appendix_c.gradient(np.array([0.1, 0]), 1) == pytest.approx([0, -1.8])
    assert appendix_c.covariance() == pytest.approx(np.diag([0, 3.24]))
    assert appendix_c.alignment() == pytest.approx(0.80798, abs=5e-6)
    assert np.linalg.eigvalsh(appendix_c.hessian(1)) == pytest.approx([3.40, 10.61], abs=0.005)


def test_agreement_and_accuracy_of_appendix_c():
    best, first = appendix_c.minimizer(0), appendix_c.minimizer(1)
    assert appendix_c.agreement(best) == pytest.approx(-1)
    assert appendix_c.agreement(np.zeros(2)) == pytest.approx(-0.6)
    right = [appendix_c.accuracy(theta, sign) for theta in (best, first) for sign in (1, -1)]
    assert right == pytest.approx([0.63, 0.63, 1, 0], abs=0.005)


@pytest.mark.parametrize("radius", appendix_c.RADII)
def test_the_worst_mean_loss_is_least_at_the_aggregate_minimum(radius):
    best = appendix_c.worst_case(np.array([0.1, 0]), radius)
    assert best == pytest.approx(0.5 - 0.05 + 5 * radius**2, rel=1e-6)  # along the axis of curvature 10
    for off in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01), *(appendix_c.minimizer(s) - [0.1, 0] for s in (1, -1))):
        assert appendix_c.worst_case(np.array([0.1, 0]) + off, radius) > best


def test_equation_39_is_half_the_squared_error(monkeypatch):
    rng = np.random.default_rng
    assert abs(appendix_c.monte_carlo(np.array([0.3, -0.2]), 1.0, rng(0), 50_000)) < 4
    half = appendix_c.loss
    monkeypatch.setattr(appendix_c, "loss", lambda theta, sign: 2 * half(theta, sign))
    assert abs(appendix_c.monte_carlo(np.array([0.3, -0.2]), 1.0, rng(0), 50_000)) > 20


@pytest.mark.parametrize(
    ("off", "verdict"), [((3.9, -3.9), "holds"), ((0.0, -4.1), "does not hold"), ((4.1, 0.0), "does not hold")]
)
def test_a_sample_that_is_far_off_is_said(monkeypatch, off, verdict):
    monkeypatch.setattr(appendix_c, "monte_carlo", lambda theta, sign, *_: off[sign < 0])
    found = {one.where: one for one in appendix_c.findings(np.random.default_rng(0), 10)}
    assert found["Appendix C, Eq. 39"].verdict == verdict


def test_the_largest_way_from_the_optimum_is_said(monkeypatch):
    monkeypatch.setattr(appendix_c, "_argmin", lambda radius: appendix_c.minimizer(0) + np.array([0, radius]))
    assert appendix_c._flatness().numbers["moved"] == pytest.approx(0.5)


def test_a_printed_number_is_held_to_its_digits(monkeypatch):
    monkeypatch.setattr(appendix_c, "alignment", lambda: 0.8151)
    verdicts = {one.where: one.verdict for one in appendix_c._numbers()}
    assert verdicts.pop("Appendix C, alignment term") == "does not hold"
    assert set(verdicts.values()) == {"holds"}
