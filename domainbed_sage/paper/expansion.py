"""What Theorem 1 says of four kinds of losses: the ratio of excess risk and alignment term at several K."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from domainbed_sage.paper import appendix_c
from domainbed_sage.paper.findings import Finding
from domainbed_sage.paper.theorem1 import CommonHessian, Estimate, NotQuadratic, RandomHessians

COMMON, RANDOM, OTHER, TWO = "common Hessian", "random Hessians", "not quadratic", "Appendix C"
DRAWS = {COMMON: 400_000, RANDOM: 30_000, OTHER: 100_000}
KS = {COMMON: (2, 4, 8, 16, 64), RANDOM: (2, 4, 8, 16), OTHER: (2, 4, 8, 16, 32, 64)}
SIGMA = 0.1
NEAR = 0.05  # of 1, at the largest K
HOW = {
    COMMON: "{draws:,} draws of K environments of L_e = ½θᵀAθ + b_eᵀθ with skewed b_e: R(θ̂) - R(θ*) beside ½ ĝᵀH̄⁻¹ĝ, "
    "draw by draw; and the mean of R(θ̂ + ξ) - R(θ*), σ = 0.1, beside both terms of Eq. 5, in standard errors.",
    RANDOM: "{draws:,} draws of K environments of L_e = ½(θ - c_e)ᵀH_e(θ - c_e), H_e Wishart with 24 degrees of "
    "freedom and mean I, c_e normal, in three dimensions; the mean of R(θ̂) - R(θ*) - ½ ĝᵀH̄⁻¹ĝ over the alignment "
    "term, with 95% intervals.",
    OTHER: "{draws:,} draws of K environments of L_e = log cosh(θ - c_e), c_e exponential; as above, θ̂ by Newton "
    "steps.",
}


def estimates(seed: int, shrink: int = 1) -> dict[str, list[Estimate]]:
    """The ratio for each kind and K.

    Each kind and K has random numbers of its own: none depends on what else is computed.

    Args:
        seed: of all.
        shrink: divides the numbers of draws.
    """
    families = {COMMON: CommonHessian(), RANDOM: RandomHessians(), OTHER: NotQuadratic()}
    found = {
        kind: [family.estimate(_rng(seed, kind, K), K, DRAWS[kind] // shrink) for K in KS[kind]]
        for kind, family in families.items()
    }
    return {**found, TWO: [appendix_c.exact(K) for K in appendix_c.KS]}


def _rng(seed: int, kind: str, K: int, use: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, list(DRAWS).index(kind), K, use])


def deviations(seed: int, shrink: int = 1) -> dict[int, float]:
    """For each K, how many standard errors the mean with noise is from both terms; see `CommonHessian.deviation`."""
    family, draws = CommonHessian(), DRAWS[COMMON] // shrink
    return {K: family.deviation(_rng(seed, COMMON, K, 1), K, draws, SIGMA) for K in KS[COMMON]}


def findings(found: Mapping[str, Sequence[Estimate]], off: Mapping[int, float], shrink: int = 1) -> Iterator[Finding]:
    """One for each kind of losses but Appendix C's, which has its own; then the order of the remainder."""
    largest = max(abs(one.ratio - 1) for one in found[COMMON])
    yield Finding(
        f"Theorem 1, losses with a {COMMON}",
        "excess risk = alignment term + curvature term, to leading order",
        "exact at every K: the remainder is zero but for rounding, draw by draw, and the mean with noise is "
        f"{', '.join(f'{value:+.1f} (K = {K})' for K, value in off.items())} standard errors from both terms",
        "holds" if largest < 1e-9 and max(map(abs, off.values())) < 4 else "does not hold",
        HOW[COMMON].format(draws=DRAWS[COMMON] // shrink),
        {f"deviation at K = {K}": value for K, value in off.items()},
    )
    for kind, what in ((RANDOM, "quadratic losses with random Hessians"), (OTHER, "losses that are not quadratic")):
        last = found[kind][-1]
        yield Finding(
            f"Theorem 1, {what}",
            "the alignment term is the excess risk to leading order",
            f"excess over alignment term is {', '.join(f'{one} (K = {one.K})' for one in found[kind])}",
            "holds" if abs(last.ratio - 1) <= NEAR + last.half_width else "does not hold",
            HOW[kind].format(draws=DRAWS[kind] // shrink),
            {f"K = {one.K}": one.ratio for one in found[kind]}
            | {f"half-width at K = {one.K}": one.half_width for one in found[kind]},
        )
    yield _order(found)


def _order(found: Mapping[str, Sequence[Estimate]]) -> Finding:
    scaled = {kind: [one.scaled_remainder for one in found[kind]] for kind in (RANDOM, OTHER, TWO)}
    largest = max(abs(value) for values in scaled.values() for value in values)
    listed = (f"{kind} {values[0]:+.2f} to {values[-1]:+.2f}" for kind, values in scaled.items())
    return Finding(
        "Theorem 1, order of the remainder",
        "O(K^-3/2)",
        f"holds, and is loose for these losses: K² times the remainder stays bounded, {'; '.join(listed)} (smallest to "
        "largest K)",
        "holds" if largest < 1 else "holds in part",
        "K² (excess - alignment term), from the ratios above and those of Appendix C.",
        {f"{kind}, K = {one.K}": one.scaled_remainder for kind in scaled for one in found[kind]},
    )
