"""Ascent directions, and the one place where weights are perturbed and restored."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.polar import PolarDtype, PolarMethod, polar_factors
from domainbed_sage.geometry.vectors import Vector, add_, in_own_memory, norm, scale_

SMALLEST_NORM = 1e-12
SMALLEST_PRODUCT = 1e-300
REQUIRED_OF_WEIGHTS = 0.9


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


class Survival(NamedTuple):
    """How much of a change is left in some arithmetic: its cosine to the intended change, and its relative size."""

    cosine: float
    size: float

    @classmethod
    def of(cls, actual: Vector, intended: Vector) -> "Survival":
        """Compare two changes over all tensors together, in double precision; both 1 where both changes are 0."""
        pairs = ((a.double().flatten(), b.double().flatten()) for a, b in zip(actual, intended, strict=True))
        products = torch.stack([torch.stack([a @ a, a @ b, b @ b]) for a, b in pairs]).sum(0)
        aa, ab, bb = products.tolist()
        if aa == bb == 0:
            return cls(1.0, 1.0)
        return cls(ab / math.sqrt(max(aa * bb, SMALLEST_PRODUCT)), math.sqrt(aa / max(bb, SMALLEST_PRODUCT)))


@torch.no_grad()
def check_held(params: Vector, epsilon: Vector, algorithm: str) -> Survival:
    """How much of ε the weights hold, in their own dtype: (θ + ε) - θ against ε.

    Raises:
        UserError: the cosine is below 0.9, so the method would silently become another one.
    """
    found = Survival.of(tuple((p + e) - p for p, e in zip(params, epsilon, strict=True)), epsilon)
    if found.cosine < REQUIRED_OF_WEIGHTS:
        raise UserError(
            f"{algorithm}'s perturbation is too small for weights in {params[0].dtype}: the cosine between the "
            f"intended and the actual change of the weights is {found.cosine:.3f}, and at least {REQUIRED_OF_WEIGHTS} "
            f"is required. Use a larger radius."
        )
    return found
