"""Dynamic weight average."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import LossSolver, Tasks, register
from domainbed_sage.algorithms.solvers.memory import Memory
from domainbed_sage.core.hparams import Choice


@dataclass
class Window(Memory):
    """The last losses [2 n, K], the latest at the end, 1 where none was seen; and the number of steps done."""

    losses: Tensor
    steps: int = 0


@dataclass
class Epochs(Memory):
    """Mean losses of the last two epochs [2, K], the sum of this one's [K], its steps, and the epochs done."""

    means: Tensor
    total: Tensor
    steps: int = 0
    ended: int = 0


@register("DWA")
class DWA(LossSolver):
    """Larger weights for losses that fall more slowly: w ∝ exp(r / T), r_k the ratio of successive means of L_k.

    With one task d = g. A mean of 0 makes the weights NaN, and the run stops.

    Source: Liu et al., CVPR 2019, Eq. 7; AvivNavon/nash-mtl.

    Args:
        tasks: see `Tasks`.
        temp: T.
        reading: "window": means over the last n steps and the n before; weights with sum 1, equal up to step n + 1.
            The losses before the first step count as 1. "epoch": means over the last epoch and the one before; weights
            with sum K, equal in the first two epochs.
        iteration_window: n.

    Differences from the paper: it is the reading "epoch". Differences from the authors' code: the means are in the
    precision of the losses.
    """

    paper = "Liu et al., CVPR 2019"

    def __init__(
        self,
        tasks: Tasks,
        *,
        temp: Annotated[float, Field(gt=0), Choice(1.0, 2.0, 5.0)] = 2.0,
        reading: Literal["window", "epoch"] = "window",
        iteration_window: Annotated[int, Field(ge=1)] = 25,
    ) -> None:
        super().__init__(tasks)
        self.temp, self.window = temp, iteration_window
        K = tasks.count
        self.seen: Window | Epochs
        if reading == "window":
            self.seen = Window(tasks.zeros(2 * iteration_window, K) + 1)
        else:
            self.seen = Epochs(tasks.zeros(2, K), tasks.zeros(K))
        self.kept["losses"] = self.seen

    def weights(self, losses: Tensor) -> Tensor:
        """See `LossSolver.weights`."""
        seen, n = self.seen, self.window
        if isinstance(seen, Epochs):
            seen.total, seen.steps = seen.total + losses, seen.steps + 1
            ratio = seen.means[1] / seen.means[0] if seen.ended >= 2 else torch.ones_like(losses)
            return self.tasks.count * (ratio / self.temp).softmax(0)
        seen.losses, seen.steps = torch.cat([seen.losses[1:], losses[None].to(seen.losses)]), seen.steps + 1
        ratio = seen.losses[n:].mean(0) / seen.losses[:n].mean(0)
        return (ratio / self.temp if seen.steps > n + 1 else torch.zeros_like(ratio)).softmax(0).to(losses.dtype)

    def epoch_ended(self) -> None:
        """See `Solver.epoch_ended`; an epoch without steps is none."""
        seen = self.seen
        if isinstance(seen, Epochs) and seen.steps:
            seen.means = torch.stack([seen.means[1], seen.total / seen.steps])
            seen.total, seen.steps, seen.ended = torch.zeros_like(seen.total), 0, seen.ended + 1
