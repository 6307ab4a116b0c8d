"""Spectral decoupling."""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Power
from domainbed_sage.data.batch import DomainBatch


@register("SD")
class SD(Algorithm):
    """The loss of all rows plus λ times the mean square of the logits. With λ = 0 it is ERM.

    Source: Pezeshki et al., NeurIPS 2021 (Gradient Starvation), Eq. 25; DomainBed `algorithms.py`, class SD.

    Args:
        problem: see `Problem`.
        sd_reg: weight λ. CLIP's logits are cosines times 100, whose mean square is several hundred, so the penalty
            decides there at DomainBed's default.

    Differences from the paper: the mean over rows and classes without the factor ½, as in DomainBed. Differences from
    public codes: none; `loss` is the cross-entropy alone.
    """

    paper = "Pezeshki et al., NeurIPS 2021"

    def __init__(self, problem: Problem, *, sd_reg: Annotated[float, Field(ge=0), Power(10, -5, -1)] = 0.1) -> None:
        super().__init__(problem)
        self.sd_reg = sd_reg

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        logits = self.forward(batch.x)
        loss, penalty = F.cross_entropy(logits, batch.y), logits.square().mean()
        _, g = self.gradient_of(loss + self.sd_reg * penalty)
        self.descend(g)
        return {"loss": loss.detach(), "penalty": penalty.detach()}
