"""Ascent directions, and the one place where weights are perturbed and restored."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from domainbed_sage.errors import UserError
from domainbed_sage.geometry.polar import PolarMethod, polar_factor
from domainbed_sage.geometry.vectors import Vector, dot, norm, scale

Precision: TypeAlias = Literal["fp64", "fp32", "tf32", "bf16", "fp16"]

SMALLEST_NORM = 1e-12
REQUIRED_SURVIVAL = 0.9
_DISCARDED_TF32_BITS = 13


def l2_ascent(g: Vector, rho: float) -> Vector:
    """SAM's perturbation ρ g / (‖g‖₂ + 1e-12), one norm over all parameters (Foret et al., Eq. 2)."""
    return scale(rho / (norm(g) + SMALLEST_NORM), g)


@torch.no_grad()
def spectral_ascent(
    W: Tensor,
    G: Tensor,
    rho: float,
    *,
    method: PolarMethod = "quintic",
    steps: int = 5,
    orthogonalize: bool = True,
    scale_by_weight: bool = True,
) -> Tensor:
    """SAGE's perturbation of one parameter, of the shape of `W`.

    Matrices and higher-order tensors (viewed as [first dimension, rest]): ρ ‖W‖_F Q with Q ≈ U Vᵀ of the gradient.
    Vectors and scalars: ρ G / ‖G‖₂, each parameter by itself; 0 where ‖G‖₂ ≤ 1e-12.

    Args:
        W: the clean parameter.
        G: its gradient.
        rho: perturbation radius ρ.
        method: how Q is computed, see `polar_factor`.
        steps: iterations T.
        orthogonalize: False puts G / ‖G‖_F in the place of Q (ablation).
        scale_by_weight: False drops the factor ‖W‖_F (ablation).

    Source: SAGE, Section 3.1 and Algorithm 1, lines 14 to 21.
    """
    length = torch.linalg.vector_norm(G)
    if W.ndim < 2:
        return torch.where(length > SMALLEST_NORM, rho / length.clamp_min(SMALLEST_NORM), 0.0) * G
    if orthogonalize:
        Q = polar_factor(G.reshape(len(G), -1), method, steps).reshape(G.shape)
    else:
        Q = G / length.clamp_min(SMALLEST_NORM)
    radius = rho * torch.linalg.vector_norm(W).clamp_min(SMALLEST_NORM) if scale_by_weight else rho
    return radius * Q


@contextmanager
def perturbed(params: Vector, epsilon: Vector) -> Iterator[None]:
    """Move the parameters by `epsilon` inside the block; leaving it restores every bit, also after an exception.

    The clean weights are kept as copies: adding and then subtracting ε does not give the weights back.
    """
    clean = [p.detach().clone() for p in params]
    try:
        with torch.no_grad():
            torch._foreach_add_(list(params), list(epsilon))
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(params), clean)


def rounded(t: Tensor, precision: Precision) -> Tensor:
    """Return `t` as a matrix product in this precision sees it, in the dtype of `t`.

    TF32 keeps 10 bits of the mantissa (round half up); fp32 and fp64 change nothing.
    """
    if precision in ("bf16", "fp16"):
        return t.to(torch.bfloat16 if precision == "bf16" else torch.float16).to(t.dtype)
    if precision == "tf32":
        half = 1 << (_DISCARDED_TF32_BITS - 1)
        kept = (t.float().view(torch.int32) + half) & -(1 << _DISCARDED_TF32_BITS)
        return kept.view(torch.float32).to(t.dtype)
    return t


@torch.no_grad()
def survival(params: Vector, epsilon: Vector, precision: Precision) -> Tensor:
    """Cosine of the change that the forward pass sees to the intended change ε, over all parameters []; 1 when ε = 0.

    Matrices are rounded to the working precision before and after the perturbation; vectors (biases, normalisation
    gains) are only added in the parameters' own dtype.
    """

    def seen(p: Tensor) -> Tensor:
        return rounded(p, precision) if p.ndim >= 2 else p

    intended = tuple(e.double() for e in epsilon)
    actual = tuple((seen(p + e) - seen(p)).double() for p, e in zip(params, epsilon, strict=True))
    lengths = norm(intended) * norm(actual)
    nothing_intended = norm(intended) == 0
    return torch.where(nothing_intended, 1.0, dot(intended, actual) / lengths.clamp_min(1e-300))


def check_survival(params: Vector, epsilon: Vector, precision: Precision, algorithm: str) -> float:
    """Measure `survival` and refuse to go on when less than 0.9 of the perturbation is left.

    Raises:
        UserError: the perturbation drowns in rounding, so the method would silently become another one.
    """
    cosine = float(survival(params, epsilon, precision))
    if cosine < REQUIRED_SURVIVAL:
        raise UserError(
            f"{algorithm}'s perturbation does not survive {precision} arithmetic: the cosine between the intended and "
            f"the actual change of the weights is {cosine:.3f}, and at least {REQUIRED_SURVIVAL} is required. "
            f"Below that the perturbed pass sees rounding noise and the method silently turns into another one. "
            f"Use --precision fp32 (with TF32 off), or a larger radius."
        )
    return cosine
