"""Sharpness-aware multi-task optimisation, with and without the spectral perturbation."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.algorithms.solvers.memory import Memory
from domainbed_sage.core.hparams import Choice, Power
from domainbed_sage.geometry.perturb import SMALLEST_NORM, l2_ascent_, perturbed, spectral_ascent
from domainbed_sage.geometry.polar import PolarMethod
from domainbed_sage.geometry.vectors import Vector, add_, add_noise_, agreement, clip_, part, scale, scale_


class _OwnPerturbations(Algorithm):
    """A perturbation for every task, from the common gradient and a gradient-free estimate of the task's own.

    Args:
        problem: see `Problem`.
        interpolation: share b of a task's own direction.
        zo_eps: distance ε₀ of the two losses that its estimate compares.
        layerwise: whether the estimate gets the length of the common gradient in every tensor.
        max_norm: what the direction of the shared parameters is clipped to, after a factor K.
    """

    def __init__(self, problem: Problem, interpolation: float, zo_eps: float, layerwise: bool, max_norm: float) -> None:
        super().__init__(problem)
        self.interpolation, self.zo_eps, self.layerwise, self.max_norm = interpolation, zo_eps, layerwise, max_norm

    @abstractmethod
    def ascent(self, direction: Vector, k: int) -> Vector:
        """The perturbation ε_k of all parameters from the direction of task k, which is 0 for other heads."""

    def direction(self, batch: Any, g: Vector) -> Vector:
        """What is descended on: the combined gradients of the tasks, each at its own θ + ε_k; g is the common one."""
        found = [self._gradient_there(batch, g, k) for k in range(len(self.objectives.heads))]
        losses, gradients = torch.stack([loss for loss, _ in found]), [gradient for _, gradient in found]
        combined = self.objectives.combine(batch, losses, gradients)
        shared = part(combined, self.objectives.shared)
        clip_(scale_(float(len(losses)), shared), self.max_norm)
        return combined

    def _gradient_there(self, batch: Any, g: Vector, k: int) -> tuple[Tensor, Vector]:
        own, b, shared = self.estimate(batch, g, k), self.interpolation, self.objectives.shared
        mixed = iter(add_(scale(1 - b, part(g, shared)), own, b))
        head = self.objectives.heads[k]
        d = tuple(
            next(mixed) if is_shared else t.clone() if of_head else torch.zeros_like(t)
            for t, is_shared, of_head in zip(g, shared, head, strict=True)
        )
        with self.perturbed(self.ascent(d, k)):
            return self.gradient_of(self.objectives.loss_of(batch, k))

    @torch.no_grad()
    def estimate(self, batch: Any, g: Vector, k: int) -> Vector:
        """z_k = (L_k(θ + ε₀ Z) - L_k(θ - ε₀ Z)) / (2 ε₀) Z of the shared parameters in evaluation mode; Z ~ N(0, 1)."""
        Z = tuple(self.draws.normal("Z", p) for p in part(self.params, self.objectives.shared))
        self.model.eval()
        ahead, behind = (self._loss_at(batch, k, scale(sign * self.zo_eps, Z)) for sign in (1, -1))
        self.model.train()
        z = scale_((ahead - behind) / (2 * self.zo_eps), Z)
        if self.layerwise:
            for t, other in zip(z, part(g, self.objectives.shared), strict=True):
                t.mul_(other.norm() / t.norm().clamp_min(SMALLEST_NORM))
        return z

    def _loss_at(self, batch: Any, k: int, offset: Vector) -> Tensor:
        with perturbed(part(self.params, self.objectives.shared), offset):
            return self.objectives.loss_of(batch, k)


@dataclass
class _Previous(Memory):
    """The gradient [P tensors] of the step before; 0 before the first one."""

    gradient: Vector


@register("SAMO")
class SAMO(_OwnPerturbations):
    """Every task's gradient at its own θ + ε_k, combined; ε_k is along (1 - b) g + b z_k.

    g is the gradient of the mean loss, and z_k an estimate of task k's own from two losses, along one random direction.
    ε_k has the length ρ over all shared parameters, and ρ again over those of head k, where it is along g alone.

    Source: Ban et al., ICCV 2025; OptMN-Lab/SAMO, `trainer_samo.py`, since the paper's text was not at hand.

    Args:
        problem: see `Problem`.
        samo_rho: radius ρ.
        samo_beta: b.
        zo_eps: distance ε₀ of the two losses that z_k compares.
        layerwise: whether z_k gets the length of g in every tensor, the paper's «layerwise normalisation».
        accumulate: whether g is added to the gradient that the optimizer was given in the step before.
        samo_max_norm: what the combined gradient of the shared parameters is clipped to, after a factor K.

    Differences from the authors' code: it normalises layerwise for Cityscapes and not for NYU-v2, which `layerwise`
    chooses; its trainer for Cityscapes never clears gradients before g, which `accumulate` repeats; z_k is drawn from
    the run's random numbers, where the code sets the global seed anew in every step.
    """

    paper = "Ban et al., ICCV 2025"
    passes_per_step = 4

    def __init__(
        self,
        problem: Problem,
        *,
        samo_rho: Annotated[float, Field(ge=0), Choice(0.001, 0.003, 0.01)] = 0.001,
        samo_beta: Annotated[float, Field(ge=0, le=1), Choice(0.1, 0.5, 0.9)] = 0.5,
        zo_eps: Annotated[float, Field(gt=0)] = 0.01,
        layerwise: bool = True,
        accumulate: bool = False,
        samo_max_norm: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__(problem, samo_beta, zo_eps, layerwise, samo_max_norm)
        self.rho, self.previous = samo_rho, None
        if accumulate:
            zeros = tuple(torch.zeros_like(p, requires_grad=False) for p in self.params)
            self.previous = self.kept["previous"] = _Previous(zeros)

    def ascent(self, direction: Vector, k: int) -> Vector:
        """ρ d / ‖d‖ of the shared parameters, and of those of head k."""
        l2_ascent_(part(direction, self.objectives.shared), self.rho)
        if head := part(direction, self.objectives.heads[k]):
            l2_ascent_(head, self.rho)
        return direction

    def update(self, batch: Any) -> Metrics:
        """See `Algorithm.update`."""
        loss, g = self.objectives.mean_gradient(batch)
        if self.previous:
            add_(g, self.previous.gradient)
        combined = self.direction(batch, g)
        if self.previous:
            self.previous.gradient = scale(1.0, combined)
        self.descend(combined)
        return {"loss": loss}


@register("SAGE_SAMO")
class SAGESAMO(_OwnPerturbations):
    """SAMO with SAGE's spectral perturbation of every task's direction, and SAGE's noise on the combined gradient.

    Source: none. Rows of SAGE's Table 2 name it, and neither paper nor code says what it is: this is a choice. SAMO's
    direction (1 - b) g + b z_k goes through `spectral_ascent`, the agreement S is that of the K gradients at θ, and the
    noise comes after clipping.

    Args:
        problem: see `Problem`.
        rho: see `SAGE`.
        gamma: see `SAGE`.
        ns: see `SAGE`.
        ns_steps: see `SAGE`.
        scale_by_weight: see `SAGE`.
        samo_beta: see `SAMO`.
        zo_eps: see `SAMO`.
        layerwise: see `SAMO`.
        samo_max_norm: see `SAMO`.
    """

    paper = "Ballas and Diou, arXiv 2026"
    experimental = True
    passes_per_step = 4

    def __init__(
        self,
        problem: Problem,
        *,
        rho: Annotated[float, Field(ge=0), Power(10, -7, -4)] = 1e-4,
        gamma: Annotated[float, Field(ge=0), Power(10, -7, -4)] = 1e-5,
        ns: PolarMethod = "quintic",
        ns_steps: Annotated[int, Field(ge=0, le=100)] = 5,
        scale_by_weight: bool = True,
        samo_beta: Annotated[float, Field(ge=0, le=1), Choice(0.1, 0.5, 0.9)] = 0.5,
        zo_eps: Annotated[float, Field(gt=0)] = 0.01,
        layerwise: bool = True,
        samo_max_norm: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__(problem, samo_beta, zo_eps, layerwise, samo_max_norm)
        self.rho, self.gamma = rho, gamma
        self.spectral = partial(spectral_ascent, method=ns, steps=ns_steps, scale_by_weight=scale_by_weight)

    def ascent(self, direction: Vector, k: int) -> Vector:
        """SAGE's perturbation of the shared parameters and of those of head k."""
        del k
        return self.spectral(self.params, direction, self.rho)

    def update(self, batch: Any) -> Metrics:
        """See `Algorithm.update`."""
        losses, inner_products, g = self.domain_moments(batch)
        S = agreement(inner_products)
        beta = self.gamma * (1 - S)
        combined = self.direction(batch, g)
        self.descend(add_noise_(combined, beta, partial(self.draws.normal, "xi")))
        return {"loss": batch.weights @ losses, "agreement": S, "beta": beta}
