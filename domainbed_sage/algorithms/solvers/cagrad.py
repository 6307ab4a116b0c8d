"""Conflict-averse gradient descent."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import GramSolver, Tasks, register
from domainbed_sage.algorithms.solvers.simplex import ROUNDING, lowest, quadratic, unit_rows
from domainbed_sage.core.hparams import Choice


def cagrad_weights(G: Tensor, c: float) -> Tensor:
    """Weights [K] of the d with the largest min_k ⟨g_k, d⟩ in the ball |d - g₀| ≤ c |g₀| around the mean gradient g₀.

    d = g₀ + c |g₀| g_w / |g_w| with the w in the simplex of smallest ⟨g_w, g₀⟩ + c |g₀| |g_w|; d = g₀ if that g_w is 0.
    """
    K = len(G)
    C, e, _ = unit_rows(G)
    mean = 1 / (K * e)
    length = quadratic(C, mean).clamp_min(0).sqrt()
    s = c * length
    w = lowest(C, e, C @ mean, torch.where(s > 0, s, 1))
    u = w / e
    square = quadratic(C, u)
    pull = s / square.sqrt()
    return 1 / K + torch.where(square > ROUNDING * (u @ u), pull, 0) * w


@register("CAGrad")
class CAGrad(GramSolver):
    """The direction in a ball around the mean gradient that improves the slowest task most, divided by 1 + c².

    c = 0 is the mean. If a convex combination of the gradients vanishes and no direction of the ball improves all
    tasks, d is the mean. With one task d = (1 + c) g / (1 + c²).

    Source: Liu et al., NeurIPS 2021, Algorithm 1; Cranial-XIX/CAGrad, whose division by 1 + c² is not in the paper.

    Args:
        tasks: see `Tasks`.
        c: radius of the ball, as a share of the length of the mean gradient.
        max_norm: see `Solver`.

    Differences from the authors' code: the exact solution, where SLSQP stops at an absolute change of 1e-6; for short
    gradients that is its starting point.
    """

    paper = "Liu et al., NeurIPS 2021"
    heads = "plain"
    factor_k = True

    def __init__(
        self,
        tasks: Tasks,
        *,
        c: Annotated[float, Field(ge=0), Choice(0.2, 0.4, 0.6, 0.8)] = 0.4,
        max_norm: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        super().__init__(tasks)
        self.c, self.max_norm = c, max_norm

    def solve(self, G: Tensor) -> Tensor:
        """See `GramSolver.solve`."""
        return cagrad_weights(G, self.c) / (1 + self.c**2)
