"""Steps of the proof of Theorem 1 that Assumption 1 does not give: each by losses that meet it, computed exactly."""

import math
from collections.abc import Iterator

from domainbed_sage.paper.findings import Finding

KS = (2, 5, 10, 20)
CHI_KS = (4, 5, 10, 20)
TAIL = 1.5  # of a Pareto variable: its mean is finite, its variance is not


def none_exists(K: int) -> float:
    """The probability that K curvatures, each -1 or 3 with equal chance, have a mean ≤ 0: no empirical minimizer.

    The mean of the meta-distribution is 1 > 0. With m threes the mean is (4m - K)/K.
    """
    return sum(math.comb(K, m) for m in range(K + 1) if 4 * m <= K) / 2**K


def chi_ratio(K: int) -> float:
    """E[(ĝ/Ĥ)²] over 1/K for curvatures that are squares of normal variables, and gradients ±1 beside them.

    KĤ is chi-squared with K degrees of freedom, so that E[Ĥ⁻²] = K²/((K - 2)(K - 4)); infinite for K ≤ 4.
    """
    return K**2 / ((K - 2) * (K - 4)) if K > 4 else math.inf


def truncated(K: int, least: float, points: int = 20_000) -> float:
    """E[max_k h_k⁻²] over the draws in which the largest of K curvatures h = exp(-1/u) has u ≥ `least`.

    u is uniform on (0, 1]; the largest of K has the density K u^(K-1). By the midpoint rule in log u.
    """
    step = -math.log(least) / points
    u = [math.exp(-(at + 0.5) * step) for at in range(points)]
    return sum(K * x**K * math.exp(2 / x) for x in u) * step


def second_moment(limit: float) -> float:
    """E[h²; h ≤ limit] of a Pareto variable h ≥ 1 with the tail index `TAIL`."""
    return TAIL / (2 - TAIL) * (limit ** (2 - TAIL) - 1)


def log_integrand(theta: float, sigma: float) -> float:
    """log10 of exp(θ⁴) exp(-θ²/(2σ²)), the growth of a loss beside the decay of the noise."""
    return (theta**4 - theta**2 / (2 * sigma**2)) / math.log(10)


def findings() -> Iterator[Finding]:
    """The expectation that need not exist, the variance of the Hessian, the growth of R, and the cross term."""
    yield from _expectation()
    yield _variance()
    yield _growth()
    yield _cross()


def _expectation() -> Iterator[Finding]:
    where, claim = "Theorem 1, the expectation on its left side", "exists under Assumption 1"
    share = {K: none_exists(K) for K in KS}
    yield Finding(
        f"{where}, curvatures of both signs",
        claim,
        "curvatures -1 and 3 with equal chance have the mean 1, and no empirical minimizer with probability "
        + ", ".join(f"{value:.3g} (K = {K})" for K, value in share.items()),
        "does not hold",
        "L_e = ½ H_e θ² + b_e θ; the binomial probability that the mean of K curvatures is not positive.",
        {f"K = {K}": value for K, value in share.items()},
    )
    ratio = {K: chi_ratio(K) for K in CHI_KS}
    yield Finding(
        f"{where}, positive curvatures",
        claim,
        "curvatures that are squares of normal variables give an infinite mean up to K = 4, and "
        + ", ".join(f"{value:.2f} (K = {K})" for K, value in ratio.items() if value < math.inf)
        + " times the alignment term above",
        "does not hold",
        "L_e = ½ H_e θ² + b_e θ with b_e = ±1: the excess is E[(ĝ/Ĥ)²]/2, and E[Ĥ⁻²] = K²/((K - 2)(K - 4)) for the "
        "mean of K chi-squared variables of one degree.",
        {f"K = {K}": value for K, value in ratio.items()},
    )
    partial = {least: truncated(4, least) for least in (0.1, 0.05, 0.025)}
    yield Finding(
        f"{where}, positive curvatures near 0",
        claim,
        "curvatures exp(-1/u), u uniform, are positive, and the mean is infinite at every K. At K = 4 the draws whose "
        f"largest u exceeds {', '.join(map(str, partial))} alone contribute at least "
        f"{', '.join(f'{value:.1e}' for value in partial.values())} to E[Ĥ⁻²]. It exists if H_e ⪰ μI with μ > 0, or "
        "with a truncation",
        "does not hold",
        "E[Ĥ⁻²] ≥ E[max h_k⁻²] = ∫ K u^(K-1) exp(2/u) du, which diverges at 0 for every K; its part above each u.",
        {f"u ≥ {least}": value for least, value in partial.items()},
    )


def _variance() -> Finding:
    moments = {limit: second_moment(limit) for limit in (1e2, 1e4, 1e6)}
    return Finding(
        "Theorem 1, Appendix B.2, variance of the Hessian's entries",
        "third derivatives are bounded, so entries of H_e are, and have a finite variance",
        f"of L_e = ½ h_e θ² all third derivatives are 0, h_e Pareto with the tail index {TAIL} has the mean "
        f"{TAIL / (TAIL - 1):.0f} and no variance: its second moment up to 1e2, 1e4, 1e6 is "
        f"{', '.join(f'{value:,.0f}' for value in moments.values())}. The bound is one within an environment, not over "
        "all; E‖H_e‖² < ∞ has to be assumed",
        "does not hold",
        "The second moment of a Pareto variable up to a limit T, 3 (√T - 1), in closed form.",
        {f"up to {limit:g}": value for limit, value in moments.items()},
    )


def _growth() -> Finding:
    places = {theta: log_integrand(theta, 0.1) for theta in (5.0, 7.0, 8.0, 10.0)}
    return Finding(
        "Theorem 1, Step 3, mean over Gaussian noise",
        "E[R(θ̂ + ξ)] is finite under Assumption 1",
        "not for R = ½θ² + exp(θ⁴), smooth and convex: log10 of exp(θ⁴) times the density's exponential at σ = 0.1 is "
        f"{', '.join(f'{value:.0f} (θ = {theta:.0f})' for theta, value in places.items())}, and grows without bound. "
        "Assumption 1 speaks of a neighbourhood of θ*; the growth of R beyond it has to be bounded",
        "does not hold",
        "θ⁴ - θ²/(2σ²), which tends to infinity for every σ > 0.",
        {f"θ = {theta:g}": value for theta, value in places.items()},
    )


def _cross() -> Finding:
    grid = [10**power for power in (-3, -2, -1, 0)]
    worst = max(
        sigma**2 * K**-0.5 / (2 / 3 * sigma**3 + K**-1.5 / 3)
        for sigma in grid
        for K in (1, 2, 4, 16, 10**2, 10**4, 10**6)
    )
    return Finding(
        "Theorem 1, the term O(σ² K^-1/2)",
        "is absorbed in O(K^-3/2) + O(σ³)",
        f"yes: it is at most 2/3 σ³ + 1/3 K^-3/2; the largest ratio over a grid of σ and K is {worst:.3f}, attained "
        "where σ² = 1/K",
        "holds",
        "Young's inequality with the exponents 3/2 and 3, and its two sides on a grid.",
        {"largest ratio": worst},
    )
