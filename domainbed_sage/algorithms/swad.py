"""Stochastic weight averaging, densely."""

from typing import Annotated, Any

import torch
from pydantic import Field

from domainbed_sage.algorithms.around import Around, InnerHParams, InnerName
from domainbed_sage.algorithms.averages import Average
from domainbed_sage.algorithms.base import Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.algorithms.valley import LossValley, Segment
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.batch import DomainBatch


@register("SWAD")
class SWAD(Around):
    """Train with another algorithm; end in the mean of its weights from where the validation loss has converged.

    The weights of all steps between two evaluations are averaged, and such segments again while the mean loss on the
    source domains' out splits stays low: see `LossValley`. Once that loss has risen for good, training stops; the steps
    that are left change nothing, and report the last step's numbers.

    Source: Cha et al., NeurIPS 2021, Algorithm 1; khanrc/swad `swad.py`, class LossValley.

    Args:
        problem: see `Problem`.
        around: the algorithm that trains.
        around_hparams: hyperparameters of it; those that are not named have its defaults. A random search does not
            draw them.
        n_converge: N_s, the number of evaluations in which the loss does not fall any more.
        n_tolerance: N_e, the number of evaluations in which it rises.
        tolerance_ratio: r, how far it rises above its mean at convergence, relative to that.

    Differences from the paper: those of the authors' code, see `LossValley`. Differences from that code: none; it
    evaluates every 50 to 500 steps (`checkpoint_freq`). A loss that never converges leaves the mean of the last
    segment. Intermediate records are of the weights of that step, the last one of the average; its `evaluated` says of
    which steps. BatchNorm has to be frozen (`freeze_bn`), as in the paper.
    """

    paper = "Cha et al., NeurIPS 2021"
    watches_loss = True

    def __init__(
        self,
        problem: Problem,
        *,
        around: InnerName = "ERM",
        around_hparams: InnerHParams = {},  # noqa: B006 - never changed
        n_converge: Annotated[int, Field(ge=1)] = 3,
        n_tolerance: Annotated[int, Field(ge=1)] = 6,
        tolerance_ratio: Annotated[float, Field(gt=-1)] = 0.3,
    ) -> None:
        super().__init__(problem, around, around_hparams)
        if 0 < problem.evaluations < n_converge:
            raise UserError(
                f"SWAD needs at least n_converge = {n_converge} evaluations to see that the loss has converged. Found "
                f"{problem.evaluations}: one every checkpoint_freq of {problem.steps} steps. Lower checkpoint_freq."
            )
        self.valley = self.kept["valley"] = LossValley(n_converge, n_tolerance, tolerance_ratio)
        self.segment = self.kept["segment"] = Average(self.averaged)
        self.last = self.kept["last"] = _Last(self.averaged[0].device)

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        if self.valley.dead:
            return dict(self.last.metrics)
        self.last.metrics = self.update_inner(batch)
        self.segment.add(self.averaged)
        return dict(self.last.metrics)

    def validated(self, loss: float) -> None:
        """See `Algorithm.validated`: the segment ends; it waits in the CPU's memory."""
        if not self.valley.dead:
            vector = tuple(t.to("cpu", copy=True) for t in self.segment.vector)
            start = self.step + 1 - round(self.segment.weight)
            self.valley.note(Segment(vector, loss, start, self.step))
            self.segment.weight = 0.0

    def finish(self) -> str:
        """See `Algorithm.finish`: the average."""
        if not (self.valley.converged or self.valley.queue):
            return ""  # never evaluated
        with torch.no_grad():
            torch._foreach_copy_(list(self.averaged), list(self.valley.ended()))
        first, last = self.valley.steps
        never = "" if self.valley.converged is not None else ", the last segment: the loss has not converged"
        return f"average of steps {first} … {last}{never}"


class _Last:
    """The numbers of the last step."""

    def __init__(self, device: torch.device) -> None:
        self.metrics: Metrics = {}
        self.device = device

    def state_dict(self) -> dict[str, Any]:
        return dict(self.metrics)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.metrics = {name: value.to(self.device) for name, value in state.items()}
