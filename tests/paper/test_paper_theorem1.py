"""Theorem 1 by Monte Carlo: each family against what is known of it by other means."""

import math

import numpy as np
import pytest
from scipy import integrate, optimize

from domainbed_sage.paper import expansion
from domainbed_sage.paper.theorem1 import Z95, CommonHessian, Estimate, Family, NotQuadratic, RandomHessians, minimizer

DRAWS = 20_000


def rng(*words):
    return np.random.default_rng([7, *words])


@pytest.mark.parametrize("K", [1, 2, 7])
def test_with_a_common_hessian_the_theorem_is_exact(K):
    family = CommonHessian()
    assert np.abs(family.remainders(rng(K), K, DRAWS)).max() < 1e-12
    assert abs(family.deviation(rng(K), K, DRAWS, 0.1)) < 4


def test_the_deviation_sees_a_missing_term():
    family = CommonHessian()
    assert abs(family.deviation(rng(0), 4, DRAWS, 1.0)) < 4

    class Less(CommonHessian):
        trace = family.trace / 2

    assert Less().deviation(rng(0), 4, DRAWS, 0.1) > 20


def test_traces_are_those_of_drawn_gradients():
    common, A = CommonHessian(), np.array(CommonHessian.A)
    g = (rng(1).standard_exponential((400_000, 2)) - 1) @ np.array(common.M).T
    assert np.trace(np.linalg.solve(A, np.cov(g.T))) == pytest.approx(common.trace, rel=0.02)
    own, draws = RandomHessians(), 50_000
    Z = rng(2).standard_normal((draws, own.n, own.d))
    H = Z.transpose(0, 2, 1) @ Z / own.n
    g = np.einsum("aij,aj->ai", H, rng(3).standard_normal((draws, own.d)))
    assert np.trace(np.cov(g.T)) == pytest.approx(own.trace, rel=0.02)


@pytest.mark.parametrize("K", [2, 4, 8])
def test_random_hessians_in_one_dimension_have_a_closed_form(K):
    """Gamma curvatures: weights of a mean of optima are Dirichlet."""
    n = 17
    found = RandomHessians(1, n).estimate(rng(K), K, DRAWS)
    assert found.ratio == pytest.approx(K * n / (K * n + 2), abs=2 * found.half_width)
    assert found.half_width < 0.01


def test_random_hessians_by_literal_minimizers():
    """The mean over optima is taken exactly: drawn ones agree."""
    own, K, draws = RandomHessians(2, 8), 3, DRAWS
    Z = rng(4).standard_normal((draws, K, own.n, own.d))
    H = np.einsum("akni,aknj->akij", Z, Z) / own.n
    c = rng(5).standard_normal((draws, K, own.d))
    Hc = np.einsum("akij,akj->aki", H, c).sum(1)
    theta = np.linalg.solve(H.sum(1), Hc[..., None])[..., 0]
    plain = (theta**2).sum(-1) / 2 - (Hc**2).sum(-1) / (2 * K**2)
    found = own.remainders(rng(6), K, draws)
    error = math.hypot(plain.std(), found.std()) / math.sqrt(draws)
    assert found.mean() == pytest.approx(plain.mean(), abs=4 * error)


def test_minimizers_of_log_cosh():
    c = rng(8).standard_exponential((20, 5)) * 10  # far apart: Newton's steps alone would leave the bracket
    ours = minimizer(c)
    for own, theta in zip(c, ours, strict=True):
        found = optimize.brentq(lambda x, own=own: np.tanh(x - own).mean(), own.min(), own.max())
        assert theta == pytest.approx(found, abs=1e-9)


def test_the_risk_of_log_cosh_is_the_integral():
    own = NotQuadratic()

    def risk(theta):
        return integrate.quad(lambda c: np.exp(-c) * np.log(np.cosh(theta - c)), 0, 60)[0]

    best = optimize.minimize_scalar(risk, bounds=(0, 2), method="bounded")
    assert own._optimum == pytest.approx(best.x, abs=1e-4)
    for theta in (0.0, 0.5, 2.0, 4.0):
        assert own.risk(np.array([theta]))[0] == pytest.approx(risk(theta) - best.fun, abs=1e-6)


def test_the_interval_is_that_of_the_mean():
    class Fair(CommonHessian):
        trace = 2.0  # a leading term of 1/K

        def remainders(self, rng, K, draws):
            return np.array([0.1, 0.3]) / K

    found = Fair().estimate(rng(0), 4, 2)
    assert found == Estimate(4, pytest.approx(1.2), pytest.approx(Z95 * 0.1), 0.25)
    assert found.scaled_remainder == pytest.approx(16 * 0.2 * 0.25)
    assert str(found) == "1.200 ± 0.196"
    assert str(Estimate(1, 1.357, 0.0, 1.0)) == "1.357"


def test_ratios_tend_to_one_from_their_sides():
    found = expansion.estimates(3, 20)
    for kind, side in ((expansion.RANDOM, -1), (expansion.OTHER, 1)):
        off = [side * (one.ratio - 1) for one in found[kind]]
        assert off[0] > 3 * found[kind][0].half_width
        assert abs(off[-1]) < 0.03
    assert [one.ratio for one in found[expansion.COMMON]] == pytest.approx([1] * 5)


def test_every_estimate_has_random_numbers_of_its_own(monkeypatch):
    before = expansion.estimates(3, 100)
    monkeypatch.setitem(expansion.KS, expansion.RANDOM, (8,))
    after = expansion.estimates(3, 100)
    assert after[expansion.RANDOM] == [before[expansion.RANDOM][2]]
    assert after[expansion.OTHER] == before[expansion.OTHER]
    assert expansion.estimates(4, 100)[expansion.OTHER] != before[expansion.OTHER]


def test_no_two_estimates_share_random_numbers():
    uses = [(kind, K, use) for kind, Ks in expansion.KS.items() for K in Ks for use in (0, 1)]
    assert len({expansion._rng(0, *use).random() for use in uses}) == len(uses)


@pytest.mark.parametrize(
    ("ratio", "half_width", "verdict"),
    [(1.049, 0.0, "holds"), (1.06, 0.0, "does not hold"), (0.94, 0.011, "holds"), (0.94, 0.009, "does not hold")],
)
def test_a_ratio_far_from_one_is_said(ratio, half_width, verdict):
    fine = [Estimate(2, 1.0, 0.0, 1.0)]
    found = {expansion.COMMON: fine, expansion.OTHER: fine, expansion.TWO: fine}
    made = list(expansion.findings({**found, expansion.RANDOM: [Estimate(16, ratio, half_width, 1.0)]}, {2: 0.0}))
    assert made[1].verdict == verdict


@pytest.mark.parametrize(
    ("ratio", "deviation", "verdict"),
    [(1, 3.9, "holds"), (1, -4.1, "does not hold"), (1 + 1e-8, 0, "does not hold"), (1 - 1e-8, 0, "does not hold")],
)
def test_a_common_hessian_is_held_to_exactness(ratio, deviation, verdict):
    fine = [Estimate(2, 1.0, 0.0, 1.0)]
    found = {expansion.RANDOM: fine, expansion.OTHER: fine, expansion.TWO: fine}
    made = next(iter(expansion.findings({**found, expansion.COMMON: [Estimate(2, ratio, 0.0, 1.0)]}, {2: deviation})))
    assert made.verdict == verdict


@pytest.mark.parametrize("kind", [expansion.RANDOM, expansion.OTHER, expansion.TWO])
@pytest.mark.parametrize(
    ("scaled", "verdict"), [(0.99, "holds"), (-0.99, "holds"), (1.01, "holds in part"), (-1.01, "holds in part")]
)
def test_a_remainder_that_grows_is_said(kind, scaled, verdict):
    fine = [Estimate(2, 1.0, 0.0, 1.0)]
    found = dict.fromkeys((expansion.COMMON, expansion.RANDOM, expansion.OTHER, expansion.TWO), fine)
    made = list(expansion.findings({**found, kind: [*fine, Estimate(64, 1 + scaled / 64**2, 0.0, 1.0)]}, {2: 0.0}))[-1]
    assert made.verdict == verdict
    assert f"{kind} +0.00 to {scaled:+.2f}" in made.computed
    assert made.numbers[f"{kind}, K = 64"] == pytest.approx(scaled)


def test_a_quick_run_draws_fewer(monkeypatch):
    drawn = []
    monkeypatch.setattr(Family, "estimate", lambda self, rng, K, draws: drawn.append((type(self), draws)))
    monkeypatch.setattr(CommonHessian, "deviation", lambda self, rng, K, draws, sigma: drawn.append(("noise", draws)))
    fine = [Estimate(2, 1.0, 0.0, 1.0)]
    every = dict.fromkeys((expansion.COMMON, expansion.RANDOM, expansion.OTHER, expansion.TWO), fine)
    said = [one.how.partition(" draws")[0] for one in expansion.findings(every, {2: 0.0}, 10)]
    assert said[:3] == ["40,000", "3,000", "10,000"]
    expansion.estimates(0, 10)
    expansion.deviations(0, 10)
    assert set(drawn) == {(CommonHessian, 40_000), (RandomHessians, 3_000), (NotQuadratic, 10_000), ("noise", 40_000)}
