"""What Section 3.1 says of Newton-Schulz iterations, on singular values: each step applies a polynomial to all of them.

With G = U Σ Vᵀ, the iterate is U p(Σ/‖G‖_F) Vᵀ, so that singular values are all there is to compute.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from domainbed_sage.geometry.polynomials import CUBIC, MUON_QUINTIC, Coefficients
from domainbed_sage.paper.findings import Finding

Values = NDArray[np.floating]
SIDE = 768  # of the matrices of a ViT-B
STEPS = 5  # T of the paper
LATER = 1000  # steps after which a polynomial shows whether it converges
HOW_ORDER = (
    "x ← x (3 - x²)/2 from x = 0.5 in 60 digits, and the order log(e''/e') / log(e'/e) of successive errors e = 1 - x; "
    "with x = 1 - e, one step gives e' = e² (3 - e)/2."
)
HOW_POLYNOMIALS = (
    "The two polynomials and their derivatives at their fixed points in (0, 1], and the range of singular values from "
    f"0.01 to 1 after {LATER:,} to {LATER + 10:,} steps."
)
HOW_STEPS = (
    f"Singular values of a {SIDE} x {SIDE} standard normal matrix, or i^-1, divided by their norm; then the "
    "polynomial, step by step. The cosine is that of the iterate and the polar factor."
)
HOW_SIZE = "Singular values after the iteration; the Frobenius norm of U Vᵀ of rank r is the square root of r."


def apply(sigma: Values, coefficients: Coefficients, steps: int) -> Values:
    """Singular values after so many steps a x + b x³ + c x⁵."""
    a, b, c = coefficients
    for _ in range(steps):
        square = sigma * sigma
        sigma = sigma * (a + square * (b + c * square))
    return sigma


def derivative(x: float, coefficients: Coefficients) -> float:
    """Of a x + b x³ + c x⁵."""
    a, b, c = coefficients
    return a + 3 * b * x**2 + 5 * c * x**4


def cosine(first: Values, second: Values) -> float:
    """Of two matrices with common singular vectors."""
    return float(first @ second / math.sqrt(float(first @ first) * float(second @ second)))


def order(steps: int = 7) -> float:
    """The order of convergence of Eq. 7, from its last three errors."""
    from decimal import Decimal, localcontext

    with localcontext(prec=60):
        x, errors = Decimal("0.5"), []
        for _ in range(steps):
            x = x * (3 - x * x) / 2
            errors.append((1 - x).ln())
        return float((errors[-1] - errors[-2]) / (errors[-2] - errors[-3]))


def findings(seed: int) -> Iterator[Finding]:
    """Which polynomial, how fast, how many steps, and of what size the perturbation is."""
    gaussian = np.linalg.svd(np.random.default_rng(seed).standard_normal((SIDE, SIDE)), compute_uv=False)
    spectra = {"a normal matrix": gaussian, "singular values i^-1": 1 / np.arange(1.0, SIDE + 1)}
    yield _order()
    yield _polynomials()
    for name, sigma in spectra.items():
        yield _steps(name, sigma / np.linalg.norm(sigma))
    yield _size(spectra["a normal matrix"])
    yield _cost_order()


def _order() -> Finding:
    found = order()
    return Finding(
        "Section 3.1, Eq. 7, order of convergence",
        "converges cubically",
        f"quadratically: the order is {found:.3f}, and near 1 the error e becomes 1.5 e²",
        "does not hold",
        HOW_ORDER,
        {"order": found},
    )


def _polynomials() -> Finding:
    a, b, c = MUON_QUINTIC
    fixed = math.sqrt((-b - math.sqrt(b * b - 4 * c * (a - 1))) / (2 * c))
    sigma = apply(np.linspace(0.01, 1, 2000), MUON_QUINTIC, LATER)
    late = np.concatenate([apply(sigma, MUON_QUINTIC, more) for more in range(11)])
    slope, at_one = derivative(fixed, MUON_QUINTIC), float(apply(np.ones(1), MUON_QUINTIC, 1)[0])
    return Finding(
        "Section 3.1, Eq. 7 and Algorithm 1, line 16",
        "one iteration: Eq. 7 in the text, «NewtonSchulz5 (Muon Logic)» in the algorithm",
        f"two: Eq. 7 is 1.5 x - 0.5 x³ and converges to 1; Muon's is {a} x - {-b} x³ + {c} x⁵, sends 1 to "
        f"{at_one:.3f}, has slope {slope:.2f} at its fixed point {fixed:.3f}, and keeps singular values moving between "
        f"{late.min():.2f} and {late.max():.2f}: it does not converge to the polar factor",
        "does not hold",
        HOW_POLYNOMIALS,
        {"one": at_one, "fixed": fixed, "slope": slope, "low": float(late.min()), "high": float(late.max())},
    )


def _steps(name: str, start: Values) -> Finding:
    polar = np.ones_like(start)
    after = {"cubic": apply(start, CUBIC, STEPS), "quintic": apply(start, MUON_QUINTIC, STEPS)}
    needed = next(steps for steps in range(1, 100) if apply(start, CUBIC, steps).min() > 0.99)
    numbers = {
        "before": cosine(start, polar),
        **{f"{kind} cosine": cosine(sigma, polar) for kind, sigma in after.items()},
        **{f"{kind} largest": float(sigma.max()) for kind, sigma in after.items()},
        **{f"{kind} median": float(np.median(sigma)) for kind, sigma in after.items()},
        "cubic norm": float(np.linalg.norm(after["cubic"]) / math.sqrt(SIDE)),
        "cubic 15 steps": cosine(apply(start, CUBIC, 15), polar),
        "steps needed": needed,
    }
    return Finding(
        f"Section 3.1, T = 5 of Eq. 7, {name}",
        "T = 5 suffices in practice",
        f"after 5 steps of Eq. 7 the cosine with the polar factor is {numbers['cubic cosine']:.3f} (the gradient's "
        f"own: {numbers['before']:.3f}) and the largest singular value {numbers['cubic largest']:.2f}; all exceed 0.99 "
        f"after {needed} steps; 5 steps of Muon's polynomial give {numbers['quintic cosine']:.2f}",
        "does not hold",
        HOW_STEPS,
        numbers,
    )


def _size(sigma: Values) -> Finding:
    one = float(apply(np.ones(1), MUON_QUINTIC, STEPS)[0])
    after = apply(sigma / np.linalg.norm(sigma), MUON_QUINTIC, STEPS)
    small, large = math.sqrt(64), math.sqrt(SIDE)
    return Finding(
        "Section 3.1, size of the perturbation",
        "every singular direction receives a perturbation of magnitude ρ‖W‖_F",
        f"so with U Vᵀ itself, whose Frobenius norm makes the whole ρ‖W‖_F √r, {small:.0f} to {large:.1f} times ρ‖W‖_F "
        f"for r = 64 to {SIDE}; Muon's 5 steps leave singular values from {after.min():.2f} to {after.max():.2f} of a "
        f"normal matrix, and {one:.2f} of one of rank 1",
        "holds in part",
        HOW_SIZE,
        {"rank 1": one, "low": float(after.min()), "high": float(after.max()), "root of 768": large},
    )


def _cost_order() -> Finding:
    return Finding(
        "Section 3.1, cost of the polar factor",
        "an SVD costs O(min{m, n} mn), Newton-Schulz only two products of the shape of G a step",
        f"both are of that order: for m ≤ n the two products of a step of Eq. 7 take 4 m² n FLOPs, {4 * STEPS} m² n in "
        f"T = {STEPS} steps; what differs is the constant, and how well hardware does it",
        "holds in part",
        "Counting 2 FLOPs for each multiplication and addition of X Xᵀ and of its product with X.",
        {"flops of m² n": 4 * STEPS},
    )
