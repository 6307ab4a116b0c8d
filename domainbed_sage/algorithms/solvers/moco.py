"""Multi-objective gradient correction."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import Combined, Solver, Tasks, register, weighted_sum_
from domainbed_sage.core.hparams import Uniform
from domainbed_sage.geometry.vectors import Vector, add_, gram, norm, scale_

EPS = 1e-8


class Tracked:
    """The tracked gradients y_1, …, y_K, the weights λ [K] and the number of steps done."""

    def __init__(self, tasks: Tasks) -> None:
        self.y = [tuple(torch.zeros_like(p, requires_grad=False) for p in tasks.shared) for _ in range(tasks.count)]
        self.weights = tasks.zeros(tasks.count) + 1 / tasks.count
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything a restart needs."""
        return {"y": [list(y) for y in self.y], "weights": self.weights, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for ours, theirs in zip(self.y, state["y"], strict=True):
            torch._foreach_copy_(list(ours), list(theirs))
        self.weights = state["weights"].to(self.weights)
        self.steps = state["steps"]


@register("MoCo")
class MoCo(Solver):
    """Σ_k λ_k y_k: y_k follows L_k g_k / |g_k|, and λ the weights of the shortest combination of the y.

    In step t = 1, 2, …: y_k ← y_k - β t^-σ (y_k - L_k g_k / |g_k|), then λ ← softmax(λ - γ t^-ς (Y Yᵀ + ρ I) λ).
    A zero gradient counts as 0. With one task λ = 1 and d = y.

    Source: Fernando et al., ICLR 2023, Algorithm 1; LibMTL `weighting/MoCo.py`.

    Args:
        tasks: see `Tasks`.
        moco_beta: β.
        moco_beta_sigma: σ.
        moco_gamma: γ.
        moco_gamma_sigma: ς.
        moco_rho: ρ.

    Differences from the paper: a softmax where it projects on the simplex, and gradients with the length of their
    losses, as LibMTL does. The y take the memory of K gradients.
    """

    paper = "Fernando et al., ICLR 2023"
    heads = "plain"

    def __init__(
        self,
        tasks: Tasks,
        *,
        moco_beta: Annotated[float, Field(gt=0, le=1), Uniform(0.1, 1)] = 0.5,
        moco_beta_sigma: Annotated[float, Field(ge=0, le=1)] = 0.5,
        moco_gamma: Annotated[float, Field(ge=0), Uniform(0.01, 1)] = 0.1,
        moco_gamma_sigma: Annotated[float, Field(ge=0, le=1)] = 0.5,
        moco_rho: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        super().__init__(tasks)
        self.beta, self.beta_sigma = moco_beta, moco_beta_sigma
        self.gamma, self.gamma_sigma, self.rho = moco_gamma, moco_gamma_sigma, moco_rho
        self.tracked = self.kept["tracked"] = Tracked(tasks)

    def combine(self, losses: Tensor, gradients: Sequence[Vector]) -> Combined:
        """See `Solver.combine`."""
        self.check_count(losses, gradients)
        tracked = self.tracked
        tracked.steps += 1
        beta, gamma = self.beta / tracked.steps**self.beta_sigma, self.gamma / tracked.steps**self.gamma_sigma
        for y, g, loss in zip(tracked.y, gradients, losses, strict=True):
            add_(scale_(1 - beta, y), scale_(beta * loss / (norm(g) + EPS), g))
        push = gram(tracked.y) @ tracked.weights + self.rho * tracked.weights
        tracked.weights = (tracked.weights - gamma * push).softmax(0)
        for g, y in zip(gradients, tracked.y, strict=True):
            torch._foreach_copy_(list(g), list(y))
        return Combined(weighted_sum_(gradients, tracked.weights), tracked.weights)
