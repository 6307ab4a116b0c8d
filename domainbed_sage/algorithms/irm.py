"""Invariant risk minimisation."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Power
from domainbed_sage.data.batch import DomainBatch


@register("IRM")
class IRM(Algorithm):
    """The mean of the domain losses plus λ times the mean of the domains' penalties (IRMv1).

    The penalty of a domain is the squared derivative of its loss with respect to a factor s of all logits, at s = 1.
    Its unbiased estimate is the product of the derivatives over the rows 0, 2, 4, … and 1, 3, 5, … of the domain; it
    can be negative. λ is 1 before step `irm_penalty_anneal_iters`, and the optimizer starts anew at that step. With
    λ = 0 from the start and equal sizes it is ERM.

    Source: Arjovsky et al., 2019, Eq. IRMv1 and Appendix D; DomainBed `algorithms.py`, class IRM.

    Args:
        problem: see `Problem`.
        irm_lambda: weight λ of the penalty.
        irm_penalty_anneal_iters: first step with λ.

    Differences from the paper: the mean over the domains instead of the sum, as in DomainBed. Differences from public
    codes: none. The penalty grows with the square of the logits, which CLIP's fixed scale of 100 makes large.
    """

    paper = "Arjovsky et al., Invariant risk minimization 2019"
    min_rows = 2

    def __init__(
        self,
        problem: Problem,
        *,
        irm_lambda: Annotated[float, Field(ge=0), Power(10, -1, 5)] = 100.0,
        irm_penalty_anneal_iters: Annotated[int, Field(ge=0), Power(10, 0, 4, integer=True)] = 500,
    ) -> None:
        super().__init__(problem)
        self.irm_lambda, self.anneal_iters = irm_lambda, irm_penalty_anneal_iters

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        if self.step == self.anneal_iters:
            self.restart_optimizer()
        domains = list(zip(self.forward(batch.x).split(batch.sizes), batch.y.split(batch.sizes), strict=True))
        nll = torch.stack([F.cross_entropy(logits, y) for logits, y in domains]).mean()
        penalty = torch.stack([slope(z[::2], y[::2]) * slope(z[1::2], y[1::2]) for z, y in domains]).mean()
        weight = self.irm_lambda if self.step >= self.anneal_iters else 1.0
        loss, g = self.gradient_of(nll + weight * penalty)
        self.descend(g)
        return {"loss": loss, "nll": nll.detach(), "penalty": penalty.detach()}


def slope(logits: Tensor, y: Tensor) -> Tensor:
    """d/ds of the mean cross-entropy of s · logits at s = 1 []: the mean of Σ_c p_c logit_c - logit_y."""
    expected = (logits.softmax(1) * logits).sum(1)
    return (expected - logits.gather(1, y[:, None])[:, 0]).mean()
