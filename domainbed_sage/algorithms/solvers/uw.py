"""Uncertainty weighting."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import LossSolver, Tasks, register
from domainbed_sage.algorithms.solvers.memory import Memory
from domainbed_sage.core.hparams import Power


@dataclass
class LogVariances(Memory):
    """The logarithms s [K] of the tasks' variances."""

    s: Tensor


@register("UW")
class UW(LossSolver):
    """Σ_k ½ (exp(-s_k) L_k + s_k), minimised over s as well, with s = 0 at the start: w_k = ½ exp(-s_k).

    The weights are those before this step's s. With one task it is ½ exp(-s) L.

    Source: Kendall et al., CVPR 2018, Eq. 7; AvivNavon/nash-mtl.

    Args:
        tasks: see `Tasks`.
        method_params_lr: learning rate of s, in an Adam of its own, whatever the run's optimizer is.

    Differences from the authors' code: none; one Adam with two learning rates is two.
    """

    paper = "Kendall et al., CVPR 2018"

    def __init__(
        self, tasks: Tasks, *, method_params_lr: Annotated[float, Field(ge=0), Power(10, -3, -1)] = 0.025
    ) -> None:
        super().__init__(tasks)
        self.variances = self.kept["variances"] = LogVariances(tasks.zeros(tasks.count))
        self.optimizer = self.kept["optimizer"] = torch.optim.Adam([self.variances.s], lr=method_params_lr)
        self.scheduled.append(self.optimizer)

    def weights(self, losses: Tensor) -> Tensor:
        """See `LossSolver.weights`."""
        s = self.variances.s
        w = 0.5 * (-s).exp()
        s.grad = 0.5 - w * losses.to(s)
        self.optimizer.step()
        return w.to(losses)
