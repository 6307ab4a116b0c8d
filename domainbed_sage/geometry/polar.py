"""The orthogonal polar factor U Vᵀ of a matrix G = U Σ Vᵀ, exactly or by Newton-Schulz iteration."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

PolarMethod: TypeAlias = Literal["quintic", "cubic", "svd", "svd_rank"]

Coefficients: TypeAlias = tuple[float, float, float]

MUON_QUINTIC = (3.4445, -4.7750, 2.0315)
COEFFICIENTS: dict[str, Coefficients] = {"quintic": MUON_QUINTIC, "cubic": (1.5, -0.5, 0.0)}
GRAM_ASPECT = 2  # from this ratio of the sides on the Gram matrix is cheaper
NORM_EPS = 1e-7


def polar_factor(G: Tensor, method: PolarMethod = "quintic", steps: int = 5) -> Tensor:
    """Approximate U Vᵀ of a matrix [m, n] -> [m, n].

    - ``quintic``: X ← aX + b(XXᵀ)X + c(XXᵀ)²X with Muon's tuned coefficients; the «NewtonSchulz5 (Muon logic)» of
      SAGE's Algorithm 1, line 16. It does not converge to U Vᵀ: it brings singular values quickly to about [0.7, 1.2].
    - ``cubic``: X ← ½ X (3I - XᵀX), SAGE's Eq. 7. It converges to U Vᵀ, but from X₀ = G/‖G‖_F it needs far more than
      5 steps at the sizes of a ViT: after 5 it is nearly a rescaled gradient (largest singular value 0.5 at 768 x 768).
    - ``svd``: U Vᵀ of the thin SVD; `steps` is not used. Where G is short of full rank the factor is not unique:
      LAPACK completes it by null vectors that depend on the last bits of G, with full weight. Such results do not
      repeat on another machine.
    - ``svd_rank``: Σ_{i ≤ r} u_i v_iᵀ over the r singular values above the rounding error of the decomposition, as
      Section 3.1 writes it; unique, and what the iterations tend to.

    Both iterations start from X₀ = G / (‖G‖_F + 1e-7) and work on the wide orientation (m ≤ n); of a zero matrix they
    give a zero matrix. Computed in the dtype of `G`. Where n ≥ 2m they run on the m x m Gram matrix, which is the same
    in exact arithmetic, at about half of the cost; see `_through_gram` for the distance after rounding.

    Source: SAGE, Section 3.1, Eq. 7 and Algorithm 1; Jordan et al., Muon, 2024.
    """
    if method in ("svd", "svd_rank"):
        U, sigma, Vh = torch.linalg.svd(G, full_matrices=False)
        rounding = max(G.shape) * torch.finfo(G.dtype).eps * sigma[:1]
        return U @ Vh if method == "svd" else (U * (sigma > rounding)) @ Vh
    X = G / (torch.linalg.matrix_norm(G) + NORM_EPS)
    tall = X.shape[0] > X.shape[1]
    X = X.mT if tall else X
    coefficients = COEFFICIENTS[method]
    wide = X.shape[1] >= GRAM_ASPECT * X.shape[0]
    X = _through_gram(X, coefficients, steps) if wide else _literally(X, coefficients, steps)
    return X.mT if tall else X


def _literally(X: Tensor, coefficients: Coefficients, steps: int) -> Tensor:
    """X ← aX + b(XXᵀ)X + c(XXᵀ)²X, `steps` times, of a wide or square matrix [m, n]."""
    for _ in range(steps):
        X = torch.addmm(coefficients[0] * X, _polynomial(X @ X.mT, coefficients), X)
    return X


def _through_gram(X: Tensor, coefficients: Coefficients, steps: int) -> Tensor:
    """The same iteration of a wide matrix [m, n], carried out on A = XXᵀ [m, m].

    With P = aI + bA + cA², a polynomial of A and so symmetric and commuting with it, a step X ← PX sends A to PAP; the
    P of all steps are multiplied and meet X once, at the end. Two products with the long side instead of two a step.
    Rounding enters A at the scale of its largest eigenvalue and grows with the small ones: in fp32 the result is within
    1e-3 of its norm of the exact iteration (`tests/test_geometry.py`); usually 1e-6, as the literal one.
    """
    A, Q = X @ X.mT, None
    for step in range(steps):
        P = _polynomial(A, coefficients)
        P.diagonal().add_(coefficients[0])
        Q = P if Q is None else P @ Q
        if step < steps - 1:
            A = P @ A @ P
    return X if Q is None else Q @ X


def _polynomial(A: Tensor, coefficients: Coefficients) -> Tensor:
    """bA + cA² of a square matrix: the part of a step beside aX."""
    _, b, c = coefficients
    return torch.addmm(A, A, A, beta=b, alpha=c) if c else b * A
