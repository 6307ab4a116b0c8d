"""The orthogonal polar factor U Vᵀ of a matrix G = U Σ Vᵀ, exactly or by Newton-Schulz iteration."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

PolarMethod: TypeAlias = Literal["quintic", "cubic", "svd", "svd_rank"]

MUON_QUINTIC = (3.4445, -4.7750, 2.0315)
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
    give a zero matrix. Computed in the dtype of `G`.

    Source: SAGE, Section 3.1, Eq. 7 and Algorithm 1; Jordan et al., Muon, 2024.
    """
    if method in ("svd", "svd_rank"):
        U, sigma, Vh = torch.linalg.svd(G, full_matrices=False)
        rounding = max(G.shape) * torch.finfo(G.dtype).eps * sigma[:1]
        return U @ Vh if method == "svd" else (U * (sigma > rounding)) @ Vh
    X = G / (torch.linalg.matrix_norm(G) + NORM_EPS)
    tall = X.shape[0] > X.shape[1]
    X = X.mT if tall else X
    for _ in range(steps):
        A = X @ X.mT  # [m, m]
        if method == "quintic":
            a, b, c = MUON_QUINTIC
            X = a * X + (b * A + c * A @ A) @ X
        else:
            X = 1.5 * X - 0.5 * A @ X
    return X.mT if tall else X
