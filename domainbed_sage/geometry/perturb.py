"""Ascent directions, and the one place where weights are perturbed and restored."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.polar import PolarDtype, PolarMethod, polar_factors
from domainbed_sage.geometry.vectors import Vector, add_, dot, in_own_memory, norm, scale_

Precision: TypeAlias = Literal["fp64", "fp32", "tf32", "bf16"]

SMALLEST_NORM = 1e-12
REQUIRED_SURVIVAL = 0.9
_DISCARDED_TF32_BITS = 13


def l2_ascent_(g: Vector, rho: float) -> Vector:
    """SAM's ρ g / (‖g‖₂ + 1e-12), one norm over all parameters (Foret et al., Eq. 2), written over g."""
    return scale_(rho / (norm(g) + SMALLEST_NORM), g)


@torch.no_grad()
def spectral_ascent(
    weights: Vector,
    gradient: Vector,
    rho: float,
    *,
    method: PolarMethod = "quintic",
    steps: int = 5,
    dtype: PolarDtype = "full",
    orthogonalize: bool = True,
    scale_by_weight: bool = True,
) -> Vector:
    """SAGE's perturbation ε of all parameters, each computed separately.

    A matrix W, or a higher-order tensor viewed as [first dimension, rest], moves by ρ ‖W‖_F Q with Q ≈ U Vᵀ of its
    gradient; a vector or scalar by ρ G / ‖G‖₂, and not at all where ‖G‖₂ ≤ 1e-12.

    Args:
        weights: the clean parameters.
        gradient: their gradient.
        rho: perturbation radius ρ.
        method: how Q is computed, see `polar_factor`.
        steps: iterations T.
        dtype: of the iterations, see `polar_factor`.
        orthogonalize: False puts G / ‖G‖_F in the place of Q (ablation).
        scale_by_weight: False drops the factor ‖W‖_F (ablation).

    Source: SAGE, Section 3.1 and Algorithm 1, lines 14 to 21.
    """
    is_matrix = [W.ndim >= 2 for W in weights]
    G = list(itertools.compress(gradient, is_matrix))
    if orthogonalize:
        Q: Sequence[Tensor] = polar_factors([g.flatten(1) for g in G], method, steps, dtype)
    else:
        Q = _scaled(G, 1 / _lengths(G).clamp_min(SMALLEST_NORM))
    radii = _lengths(list(itertools.compress(weights, is_matrix))).clamp_min(SMALLEST_NORM)
    Q = _scaled(Q, rho * (radii if scale_by_weight else torch.ones_like(radii)))

    g = [g for g in gradient if g.ndim < 2]
    lengths = _lengths(g)
    v = _scaled(g, torch.where(lengths > SMALLEST_NORM, rho / lengths.clamp_min(SMALLEST_NORM), 0.0))

    moved_matrices, moved_vectors = iter(Q), iter(v)
    return tuple(next(moved_matrices).reshape(W.shape) if W.ndim >= 2 else next(moved_vectors) for W in weights)


def _lengths(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each tensor [number of tensors]."""
    return torch.stack(torch._foreach_norm(list(tensors))) if tensors else torch.empty(0)


def _scaled(tensors: Sequence[Tensor], factors: Tensor) -> Sequence[Tensor]:
    """Each tensor times its own factor."""
    return torch._foreach_mul(list(tensors), factors.unbind()) if tensors else ()


@contextmanager
def perturbed(params: Vector, epsilon: Vector) -> Iterator[Vector]:
    """Move the parameters by `epsilon` inside the block; leaving it restores every bit, also after an exception.

    The block is given the moved weights, which are written over `epsilon`; the clean ones stay where
    they are: no copy of the model is made. (Adding and then subtracting ε would not give the weights back.)
    """
    clean = tuple(p.data for p in params)
    with torch.no_grad():
        moved = add_(in_own_memory(tuple(e.detach() for e in epsilon), clean), clean)
    try:
        for p, there in zip(params, moved, strict=True):
            p.data = there
        yield moved
    finally:
        for p, there in zip(params, clean, strict=True):
            p.data = there


def rounded(t: Tensor, precision: Precision) -> Tensor:
    """Return `t` as a matrix product in this precision sees it, in the dtype of `t`.

    TF32 keeps 10 bits of the mantissa (round half up); fp32 and fp64 change nothing.
    """
    if precision == "bf16":
        return t.to(torch.bfloat16).to(t.dtype)
    if precision == "tf32":
        half = 1 << (_DISCARDED_TF32_BITS - 1)
        kept = (t.float().view(torch.int32) + half) & -(1 << _DISCARDED_TF32_BITS)
        return kept.view(torch.float32).to(t.dtype)
    return t


@torch.no_grad()
def perturbation_cosine(params: Vector, epsilon: Vector, precision: Precision) -> Tensor:
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


def check_perturbation_cosine(params: Vector, epsilon: Vector, precision: Precision, algorithm: str) -> float:
    """Measure `perturbation_cosine` and refuse to go on when less than 0.9 of the perturbation is left.

    Raises:
        UserError: the perturbation is lost in rounding, so the method would silently become another one.
    """
    cosine = float(perturbation_cosine(params, epsilon, precision))
    if cosine < REQUIRED_SURVIVAL:
        raise UserError(
            f"{algorithm}'s perturbation does not survive {precision} arithmetic: the cosine between the intended and "
            f"the actual change of the weights is {cosine:.3f}, and at least {REQUIRED_SURVIVAL} is required. "
            f"Below that the perturbed pass sees rounding noise and the method silently turns into another one. "
            f"Use --precision fp32 (with TF32 off), or a larger radius."
        )
    return cosine
