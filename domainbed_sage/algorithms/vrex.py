"""Risk extrapolation."""

from typing import Annotated

from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Power
from domainbed_sage.data.batch import DomainBatch


@register("VREx")
class VREx(Algorithm):
    """The mean of the domain losses plus λ times their variance (V-REx).

    λ is 1 before step `vrex_penalty_anneal_iters`, and the optimizer starts anew at that step. With λ = 0 from the
    start and equal sizes it is ERM.

    Source: Krueger et al., ICML 2021, Eq. 8; DomainBed `algorithms.py`, class VREx.

    Args:
        problem: see `Problem`.
        vrex_lambda: weight λ of the variance.
        vrex_penalty_anneal_iters: first step with λ.

    Differences from the paper: the mean of the losses instead of their sum, as in DomainBed, so λ differs by a factor
    K. Differences from public codes: none; the `nll` it reports is the loss of the last domain, as there.
    """

    paper = "Krueger et al., ICML 2021"

    def __init__(
        self,
        problem: Problem,
        *,
        vrex_lambda: Annotated[float, Field(ge=0), Power(10, -1, 5)] = 10.0,
        vrex_penalty_anneal_iters: Annotated[int, Field(ge=0), Power(10, 0, 4, integer=True)] = 500,
    ) -> None:
        super().__init__(problem)
        self.vrex_lambda, self.anneal_iters = vrex_lambda, vrex_penalty_anneal_iters

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        if self.step == self.anneal_iters:
            self.restart_optimizer()
        losses = self.domain_losses(batch)  # [K]
        variance = losses.var(correction=0)
        weight = self.vrex_lambda if self.step >= self.anneal_iters else 1.0
        loss, g = self.gradient_of(losses.mean() + weight * variance)
        self.descend(g)
        return {"loss": loss, "nll": losses[-1].detach(), "penalty": variance.detach()}
