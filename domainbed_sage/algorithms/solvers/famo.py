"""Fast adaptive multitask optimisation."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import LossSolver, Tasks, register
from domainbed_sage.algorithms.solvers.memory import Memory
from domainbed_sage.core.hparams import Choice, Power

EPS = 1e-8


@dataclass
class Logits(Memory):
    """Logits w [K] of the tasks' shares z = softmax(w)."""

    w: Tensor


@register("FAMO")
class FAMO(LossSolver):
    """Equal relative decrease of all losses: weights ∝ z_k / L_k with sum 1, and z moves to the losses that fell least.

    After every update w follows, by Adam, the gradient of Σ_k z_k (log L_k before - log L_k after), on the same
    minibatch; z = softmax(w). With one task d = g. A negative loss makes the weights NaN, and the run stops.

    Source: Liu et al., NeurIPS 2023, Algorithm 1; Cranial-XIX/FAMO.

    Args:
        tasks: see `Tasks`.
        famo_w_lr: learning rate of w.
        famo_gamma: weight decay of w.

    Differences from the authors' code: none; the smallest possible loss is 0 for every task, as in their runs.
    """

    paper = "Liu et al., NeurIPS 2023"
    watches_losses_after = True

    def __init__(
        self,
        tasks: Tasks,
        *,
        famo_w_lr: Annotated[float, Field(ge=0), Power(10, -3, -1)] = 0.025,
        famo_gamma: Annotated[float, Field(ge=0), Choice(0.001, 0.01)] = 0.001,
    ) -> None:
        super().__init__(tasks)
        self.logits = self.kept["logits"] = Logits(tasks.zeros(tasks.count))
        self.optimizer = torch.optim.Adam([self.logits.w], lr=famo_w_lr, weight_decay=famo_gamma)
        self.kept["optimizer"] = self.optimizer
        self.before = tasks.zeros(tasks.count)

    def weights(self, losses: Tensor) -> Tensor:
        """See `LossSolver.weights`."""
        self.before = (losses + EPS).log()
        share = self.logits.w.softmax(0).to(losses) / (losses + EPS)
        return torch.where((losses >= 0).all(), share / share.sum(), torch.nan)

    def stepped(self, losses: Tensor) -> None:
        """See `Solver.stepped`."""
        fell, z = (self.before - (losses + EPS).log()).to(self.logits.w), self.logits.w.softmax(0)
        self.logits.w.grad = z * (fell - z @ fell)
        self.optimizer.step()
