"""Gradient sign dropout."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import Combined, Solver, Tasks, register
from domainbed_sage.geometry.vectors import Vector

EPS = 1e-8


def kept_signs(rows: Tensor, U: Tensor) -> Tensor:
    """Sum over the rows [K, ...] of their positive parts where P > U [...], of their negative ones where P < U.

    P = ½ (1 + Σ_k g_k / Σ_k |g_k|) is the share of the positive parts.
    """
    P = 0.5 * (1 + rows.sum(0) / (rows.abs().sum(0) + EPS))
    return (rows * ((P > U) * (rows > 0) + (P < U) * (rows < 0))).sum(0)


@register("GradDrop")
class GradDrop(Solver):
    """In every coordinate the gradients of one sign alone, drawn in proportion to what both signs weigh.

    Zero gradients change nothing. With one task d = g, but for coordinates as small as 1e-8, which may be dropped.

    Source: Chen et al., NeurIPS 2020, Algorithm 1, with leak 0, on the gradients of the shared parameters.

    Args:
        tasks: see `Tasks`.
        max_norm: see `Solver`.

    Differences from the paper: it drops at the gradients of shared features, sample by sample.
    """

    paper = "Chen et al., NeurIPS 2020"
    heads = "plain"

    def __init__(self, tasks: Tasks, *, max_norm: Annotated[float, Field(gt=0)] = 1.0) -> None:
        super().__init__(tasks)
        self.max_norm = max_norm

    def combine(self, losses: Tensor, gradients: Sequence[Vector]) -> Combined:
        """See `Solver.combine`: one parameter after the other."""
        self.check_count(losses, gradients)
        for first, *others in zip(*gradients, strict=True):
            rows = torch.stack([first, *others])
            first.copy_(kept_signs(rows, self.draws.uniform("U", first)))
        return Combined(gradients[0], None)
