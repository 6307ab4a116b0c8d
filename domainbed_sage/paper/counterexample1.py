"""Counterexample 1 and Remark 1: curvature term tr H̄ and alignment term tr(H̄⁻¹Σ_g) of explicit quadratic losses."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from domainbed_sage.paper.findings import Finding

MS = tuple(10.0**power for power in range(-2, 7))  # M of the statement
EDGE = 1 + 1e-12  # of equalities: both constructions attain one of their bounds
HOW = "tr H̄ and tr(H̄⁻¹Σ_g) from the matrix A and two environments ±b, Σ_g being the mean of b bᵀ."


def terms(A: ArrayLike, b: Sequence[ArrayLike]) -> tuple[float, float]:
    """tr H̄ and tr(H̄⁻¹Σ_g) of L_e = ½θᵀAθ + b_eᵀθ over equally likely environments."""
    H, each = np.asarray(A, float), np.asarray(b, float)
    return float(np.trace(H)), float(np.trace(np.linalg.solve(H, each.T @ each / len(each))))


def flat(M: float) -> tuple[float, float]:
    """Construction (i): A = I/(2M), b = ±(0, 1)."""
    return terms(np.eye(2) / (2 * M), [(0, 1), (0, -1)])


def sharp(M: float) -> tuple[float, float]:
    """Construction (ii): A = M/2 I, b = ±(1/√2, 0)."""
    return terms(np.eye(2) * M / 2, [(0.5**0.5, 0), (-(0.5**0.5), 0)])


def findings() -> Iterator[Finding]:
    """The two constructions, the sentence after them and a repair of its proof, then Remark 1."""
    yield _constructions()
    yield _conclusion()
    yield _repair()
    yield from _remark()


def _constructions() -> Finding:
    first = all(trace <= EDGE / M and align * EDGE >= M for M in MS for trace, align in [flat(M)])
    second = all(align <= EDGE / M and trace * EDGE >= M for M in MS for trace, align in [sharp(M)])
    (trace, align), (trace2, align2) = flat(100.0), sharp(100.0)
    return Finding(
        "Counterexample 1, constructions (i) and (ii)",
        "for every M, (i) is flat but misaligned and (ii) aligned but sharp",
        f"both hold at M = 1e-2, …, 1e6; at M = 100 (i) has {trace:g} and {align:g}, (ii) {trace2:g} and {align2:g}",
        "holds" if first and second else "does not hold",
        HOW,
        {"i trace": trace, "i align": align, "ii trace": trace2, "ii align": align2},
    )


def _conclusion() -> Finding:
    products = [np.prod(of(M)) for of in (flat, sharp) for M in MS]
    largest = float(max(products))
    return Finding(
        "Counterexample 1, its last sentence as proved in B.3",
        "(i) with M → ∞ contradicts every bound tr(H̄⁻¹Σ_g) ≤ φ(tr H̄)",
        f"it does not contradict φ(t) = 2/t: the product of both terms is 2 on (i) and 1 on (ii) for every M (largest: "
        f"{largest:.6f}), so that this finite function bounds both. φ(1/M) is finite for each M, and its argument "
        "moves",
        "does not hold",
        f"{HOW} The product of both over M = 1e-2, …, 1e6.",
        {"largest product": largest, "smallest product": float(min(products))},
    )


def _repair() -> Finding:
    sizes = (1.0, 1e3, 1e6)
    one = [terms(np.eye(2), [(0, v**0.5), (0, -(v**0.5))]) for v in sizes]
    other = [terms(scale * np.eye(2), [(0, scale**0.5), (0, -(scale**0.5))]) for scale in sizes]
    return Finding(
        "Counterexample 1, its last sentence",
        "neither term is bounded by a function of the other alone",
        f"true, with other instances: A = I and b = ±√v e₂ keep tr H̄ = {one[0][0]:g} while tr(H̄⁻¹Σ_g) = v is "
        f"{', '.join(f'{align:g}' for _, align in one)}; A = λI and b = ±√λ e₂ keep tr(H̄⁻¹Σ_g) = {other[0][1]:g} "
        f"while tr H̄ = 2λ is {', '.join(f'{trace:g}' for trace, _ in other)}",
        "holds",
        HOW,
        {"fixed trace": one[-1][0], "its align": one[-1][1], "fixed align": other[-1][1], "its trace": other[-1][0]},
    )


def _remark() -> Iterator[Finding]:
    where, claim = "Remark 1", "minimizing one term by reshaping the Hessian strictly inflates the other"
    high, low = (terms(np.diag([h, 1.0]), [(0, 1), (0, -1)]) for h in (10.0, 0.1))
    yield Finding(
        f"{where}, gradients that vary in one direction",
        claim,
        f"with Σ_g = diag(0, 1) and H̄ = diag(h, 1), h from 10 to 0.1, tr H̄ falls from {high[0]:g} to {low[0]:g} and "
        f"tr(H̄⁻¹Σ_g) stays {high[1]:g}",
        "does not hold",
        HOW,
        {"trace before": high[0], "trace after": low[0], "align before": high[1], "align after": low[1]},
    )
    spread = np.diag([0.1, 1.0])
    before, after = (_given(np.diag(H), spread @ spread) for H in ([10.0, 1.0], [1.0, 2.0]))
    yield Finding(
        f"{where}, gradients that vary in all directions",
        claim,
        f"with Σ_g = diag(0.01, 1), H̄ from diag(10, 1) to diag(1, 2) lowers both: tr H̄ from {before[0]:g} to "
        f"{after[0]:g}, tr(H̄⁻¹Σ_g) from {before[1]:.3f} to {after[1]:.3f}. At fixed positive definite Σ_g the "
        "trade-off is strict where H̄ grows, or shrinks, in the order of matrices",
        "holds in part",
        "tr H̄ and tr(H̄⁻¹Σ_g) of explicit matrices.",
        {"trace before": before[0], "trace after": after[0], "align before": before[1], "align after": after[1]},
    )
    base, optima = np.diag([0.1, 0.3]), np.diag([1.0, 2.0])
    large, small = (_given(scale * base, scale * base @ optima @ (scale * base)) for scale in (40.0, 1.0))
    yield Finding(
        f"{where}, distributions that differ in their optima",
        claim,
        "if L_e = ½(θ - c_e)ᵀH(θ - c_e), then Σ_g = H Cov(c) H, and tr(H̄⁻¹Σ_g) = tr(H Cov(c)) grows with H: it falls "
        f"from {large[1]:g} to {small[1]:g} as tr H̄ falls from {large[0]:g} to {small[0]:g}",
        "does not hold",
        "H = s diag(0.1, 0.3), s from 40 to 1, Cov(c) = diag(1, 2).",
        {"trace before": large[0], "trace after": small[0], "align before": large[1], "align after": small[1]},
    )


def _given(H: NDArray[np.float64], covariance: NDArray[np.float64]) -> tuple[float, float]:
    return float(np.trace(H)), float(np.trace(np.linalg.solve(H, covariance)))
