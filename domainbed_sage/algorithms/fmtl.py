"""Flat-minima multi-task learning."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice
from domainbed_sage.geometry.perturb import SMALLEST_NORM
from domainbed_sage.geometry.vectors import Vector, add_, norm, part, scale_


@register("F-MTL")
class FMTL(Algorithm):
    """SAM for every task, with its loss gradients g_k and what flatness adds to them, h_k, combined apart.

    h_k = ∇L_k(θ + ε_k) - g_k with ε_k = ρ g_k / ‖g_k‖, for the shared parameters and for those of head k. The shared
    ones get A(g_1, …, g_K) + A(h_1, …, h_K), A being the solver; the heads get their gradients at θ + ε_k.

    Source: Phan et al., arXiv 2022, Algorithm 1; VietHoang1512/FS-MTL.

    Args:
        problem: see `Problem`.
        fmtl_rho: radius ρ.
        adaptive: ASAM's ε_k = ρ w² g_k / ‖w g_k‖.
        joint_norm: one norm over the shared parameters and head k, as for Multi-MNIST; otherwise one each.
        aggregate: ``separate``, or ``direct``: A(∇L_1(θ + ε_1), …) alone (Table 5).
        unit_norm: whether every g_k and h_k is divided by its norm first, as in the code for MGDA on NYU-v2.

    Differences from the paper: as in the code, shared parameters and head are perturbed together, in one pass a task.
    """

    paper = "Phan et al., arXiv 2022"
    passes_per_step = 2

    def __init__(
        self,
        problem: Problem,
        *,
        fmtl_rho: Annotated[float, Field(ge=0), Choice(0.0025, 0.05, 0.5, 2.0)] = 0.05,
        adaptive: bool = False,
        joint_norm: bool = False,
        aggregate: Literal["separate", "direct"] = "separate",
        unit_norm: bool = False,
    ) -> None:
        super().__init__(problem)
        self.rho, self.adaptive, self.joint_norm = fmtl_rho, adaptive, joint_norm
        self.separate, self.unit_norm = aggregate == "separate", unit_norm

    def update(self, batch: Any) -> Metrics:
        """See `Algorithm.update`."""
        losses, g = self.domain_gradients(batch)
        perturbed = []
        for k, g_k in enumerate(g):
            with self.perturbed(self.ascent(g_k, k)):
                perturbed.append(self.gradient_of(self.objectives.loss_of(batch, k)))
        losses_there, there = torch.stack([loss for loss, _ in perturbed]), [gradient for _, gradient in perturbed]
        self.descend(self.combined(batch, losses, g, there))
        return {"loss": batch.weights @ losses, "loss_perturbed": batch.weights @ losses_there}

    def ascent(self, g: Vector, k: int) -> Vector:
        """ε_k of all parameters; 0 for other heads."""
        epsilon, shared, head = tuple(torch.zeros_like(t) for t in g), self.objectives.shared, self.objectives.heads[k]
        both = [a or b for a, b in zip(shared, head, strict=True)]
        for mask in (both,) if self.joint_norm else (shared, head):
            if chosen := part(g, mask):
                torch._foreach_copy_(
                    list(part(epsilon, mask)), list(self._of_length_rho(chosen, part(self.params, mask)))
                )
        return epsilon

    @torch.no_grad()
    def _of_length_rho(self, g: Vector, weights: Vector) -> Vector:
        if not self.adaptive:
            return scale_(self.rho / (norm(g) + SMALLEST_NORM), tuple(t.clone() for t in g))
        scaled = tuple(w.abs() * t for w, t in zip(weights, g, strict=True))
        length = norm(scaled) + SMALLEST_NORM
        return scale_(self.rho / length, tuple(w.abs() * t for w, t in zip(weights, scaled, strict=True)))

    def combined(self, batch: Any, losses: Tensor, g: list[Vector], there: list[Vector]) -> Vector:
        """What is descended on, of the gradients at θ and at θ + ε_k; both lose their values."""
        shared = self.objectives.shared
        in_heads = [not is_shared for is_shared in shared]
        if not self.separate:
            return self.objectives.combine(batch, losses, self._units(there))
        for g_k, there_k in zip(g, there, strict=True):
            add_(part(there_k, shared), part(g_k, shared), -1.0)
            for t in part(g_k, in_heads):
                t.zero_()
        loss_part = self.objectives.combine(batch, losses, self._units(g))
        return add_(self.objectives.combine(batch, losses, self._units(there)), loss_part)

    def _units(self, vectors: list[Vector]) -> list[Vector]:
        """The vectors, with their shared part divided by its norm where this is asked for; in place."""
        for vector in vectors if self.unit_norm else ():
            chosen = part(vector, self.objectives.shared)
            scale_(1 / (norm(chosen) + SMALLEST_NORM), chosen)
        return vectors
