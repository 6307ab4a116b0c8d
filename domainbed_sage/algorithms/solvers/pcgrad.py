"""Projecting conflicting gradients."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import GramSolver, Tasks, register


def projected_weights(G: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """Weights w [K] of the sum of all gradients, each after its projections, in order i for the i-th of them.

    All vectors in between are combinations of the gradients, so that their inner products follow from G [K, K].
    """
    lengths = torch.where(G.diagonal() > 0, G.diagonal(), 1)  # nothing is in conflict with a zero gradient
    rows = []
    for start, order in zip(torch.eye(len(G), dtype=G.dtype, device=G.device), orders, strict=True):
        a = start.clone()
        for j in order:
            a[j] -= (a @ G[j]).clamp_max(0) / lengths[j]
        rows.append(a)
    return torch.stack(rows).sum(0)


@register("PCGrad")
class PCGrad(GramSolver):
    """The sum of the gradients after each gave up its components against the others, in random order one by one.

    Without conflicts it is the sum of the gradients. Zero gradients change nothing; two opposite ones give 0. With one
    task d = g.

    Source: Yu et al., NeurIPS 2020, Algorithm 1.

    Args:
        tasks: see `Tasks`.
        max_norm: see `Solver`.

    Differences from the authors' code: none; a gradient is also compared with its own original, as there.
    """

    paper = "Yu et al., NeurIPS 2020"
    heads = "plain"

    def __init__(self, tasks: Tasks, *, max_norm: Annotated[float, Field(gt=0)] = 1.0) -> None:
        super().__init__(tasks)
        self.max_norm = max_norm

    def solve(self, G: Tensor) -> Tensor:
        """See `GramSolver.solve`."""
        return projected_weights(G, [self.draws.permutation("orders", len(G)) for _ in G])
