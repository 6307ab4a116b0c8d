"""Sums of the losses with weights that have no memory."""

import math

import torch
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import LossSolver, Tasks, register


@register("LS")
class LS(LossSolver):
    """The sum of the losses: linear scalarization with equal weights. With one task d = g.

    Args:
        tasks: see `Tasks`.
        mean: the mean in the place of the sum.
    """

    def __init__(self, tasks: Tasks, *, mean: bool = False) -> None:
        super().__init__(tasks)
        self.weight = 1 / tasks.count if mean else 1.0

    def weights(self, losses: Tensor) -> Tensor:
        """See `LossSolver.weights`."""
        return torch.full_like(losses, self.weight)


@register("SI")
class SI(LossSolver):
    """The sum of the logarithms of the losses, whose gradient does not depend on the losses' scales: w_k = 1 / L_k.

    A loss that is not positive has no logarithm: its weight is NaN, and the run stops. With one task d = g / L.

    Source: Navon et al., ICML 2022, Section 5.
    """

    paper = "Navon et al., ICML 2022"

    def weights(self, losses: Tensor) -> Tensor:
        """See `LossSolver.weights`."""
        return torch.where(losses > 0, 1 / losses, math.nan)


@register("RLW")
class RLW(LossSolver):
    """Random weights with sum 1, the softmax of K draws of N(0, 1), anew in every step. With one task d = g.

    Source: Lin et al., TMLR 2022, Section 3.
    """

    paper = "Lin et al., TMLR 2022"

    def weights(self, losses: Tensor) -> Tensor:
        """See `LossSolver.weights`."""
        return self.draws.normal("weights", losses).softmax(0)
