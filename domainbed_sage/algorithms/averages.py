"""Averages of vectors in weight space that a restart takes up again."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.vectors import Vector


class Average:
    """The weighted mean of the vectors that were added, updated with each of them.

    Args:
        like: a vector of the same shapes on the same device.

    Attributes:
        vector: the mean; 0 as long as nothing was added.
        weight: sum of the weights.
    """

    def __init__(self, like: Vector) -> None:
        self.vector: Vector = tuple(torch.zeros_like(t, requires_grad=False) for t in like)
        self.weight = 0.0

    @torch.no_grad()
    def add(self, vector: Vector, weight: float = 1.0) -> None:
        """Take in one more vector."""
        self.weight += weight
        torch._foreach_lerp_(list(self.vector), list(vector), weight / self.weight)

    def follow(self, vector: Vector, decay: float) -> None:
        """Become a moving average, m ← decay m + (1 - decay) v; the first vector is taken as it is."""
        self.weight = decay if self.weight else 0.0
        self.add(vector, 1 - self.weight)

    @torch.no_grad()
    def copy_to(self, vector: Vector) -> None:
        """Overwrite a vector with the mean."""
        torch._foreach_copy_(list(vector), list(self.vector))

    def state_dict(self) -> dict[str, Any]:
        """Everything a restart needs."""
        return {"vector": list(self.vector), "weight": self.weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        torch._foreach_copy_(list(self.vector), list(state["vector"]))
        self.weight = state["weight"]


def beta_weight(t: int, T: int, beta: float) -> float:
    """Weight of the weights after t of T steps, t = 0 … T: the density of Beta(β, β) at (t + ½) / (T + 1)."""
    x = (t + 0.5) / (T + 1)
    return math.exp(math.lgamma(2 * beta) - 2 * math.lgamma(beta)) * (x * (1 - x)) ** (beta - 1)


def check_averaged(name: str, networks: Iterable[nn.Module]) -> None:
    """Make sure that averaged weights need no statistics that nobody has measured.

    Raises:
        UserError: BatchNorm layers follow the statistics of the batches; those of the average are not known.
    """
    layers = [m for network in networks for m in network.modules() if isinstance(m, _BatchNorm)]
    moving = sum(m.training and m.track_running_stats for m in layers)
    if moving:
        raise UserError(
            f"{name} ends in an average of weights, for which the running statistics of BatchNorm are wrong. Found "
            f"{moving} BatchNorm layers that follow the batches. Keep their statistics fixed with the hyperparameter "
            f"freeze_bn, switch such layers off where the method adds them, or choose a network without them."
        )
