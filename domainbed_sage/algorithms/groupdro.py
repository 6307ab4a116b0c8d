"""Group distributionally robust optimisation."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Power
from domainbed_sage.data.batch import DomainBatch


class DomainWeights(nn.Module):
    """Weights q [K] of the domains, which sum to 1 and start equal."""

    q: Tensor

    def __init__(self, num_domains: int) -> None:
        super().__init__()
        self.register_buffer("q", torch.full((num_domains,), 1 / num_domains))


@register("GroupDRO")
class GroupDRO(Algorithm):
    """Σ_k q_k L_k, where the weights q move to the domains with the larger losses: q_k ← q_k exp(η L_k) / Σ.

    q is updated first, and held fixed in the gradient. With η = 0 and equal sizes, or with one domain, it is ERM.

    Source: Sagawa et al., ICLR 2020, Algorithm 1; DomainBed `algorithms.py`, class GroupDRO.

    Args:
        problem: see `Problem`.
        groupdro_eta: step size η of the weights.

    Differences from the paper: all domains take part in every step instead of one drawn at random, as in DomainBed.
    Differences from public codes: one forward pass over the whole minibatch, where DomainBed passes domain by domain;
    that matters to BatchNorm with batch statistics alone.
    """

    paper = "Sagawa et al., ICLR 2020"

    def __init__(
        self, problem: Problem, *, groupdro_eta: Annotated[float, Field(ge=0), Power(10, -3, -1)] = 1e-2
    ) -> None:
        super().__init__(problem)
        self.eta = groupdro_eta
        self.weights = self.add_network("weights", DomainWeights(problem.num_domains))

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        losses = self.domain_losses(batch)  # [K]
        self.weights.q = (self.weights.q.log() + self.eta * losses.detach()).softmax(0)
        loss, g = self.gradient_of(self.weights.q @ losses)
        self.descend(g)
        return {"loss": loss, "largest_weight": self.weights.q.max()}
