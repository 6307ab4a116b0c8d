"""Domain-inspired sharpness-aware minimisation."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import l2_ascent_
from domainbed_sage.geometry.vectors import norm


@register("DISAM")
class DISAM(Algorithm):
    """SAM whose ascent direction is the gradient of Σ_k w_k L_k - λ Var(L_1, …, L_K).

    The descent gradient is the plain one at θ + ε. With λ = 0, or one source domain, it is SAM; with ρ = 0 it is ERM.

    Source: Zhang et al., ICLR 2024, Eq. 8; MediaBrain-SJTU/DISAM `DISAM.py`.

    Args:
        problem: see `Problem`.
        rho: radius ρ.
        lambda_weight: weight λ of the variance of the domain losses.
        sample_weighted: take the variance over samples, each with the loss of its domain, as the authors' code does.

    Differences from the paper:
        1. None by default: Var = (1/K) Σ_k (L_k - mean L)². The authors' code enumerates the domains of a tensor with
           `set()`, which finds every sample, so its variance is Σ_k w_k (L_k - Σ_j w_j L_j)² with w_k = n_k / N:
           ``sample_weighted=True``. The two agree when all domains have equally many rows in the batch.
        2. ρ is 0.05 in the main text, 0.5 or 0.01 in the appendix, 0.01 in the code; the default is the main text's.
    """

    paper = "Zhang et al., ICLR 2024"
    passes_per_step = 2

    def __init__(
        self,
        problem: Problem,
        *,
        rho: Annotated[float, Field(ge=0), Choice(0.01, 0.02, 0.05, 0.1)] = 0.05,
        lambda_weight: Annotated[float, Field(ge=0), Choice(0.05, 0.1, 0.2)] = 0.1,
        sample_weighted: bool = False,
    ) -> None:
        super().__init__(problem)
        self.rho, self.lambda_weight, self.sample_weighted = rho, lambda_weight, sample_weighted

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        losses = self.domain_losses(batch)  # [K]
        variance = self.variance(losses, batch.weights)
        loss = batch.weights @ losses
        _, g = self.gradient_of(loss - self.lambda_weight * variance)
        epsilon = l2_ascent_(g, self.rho)
        epsilon_norm = norm(epsilon)
        with self.perturbed(epsilon):
            loss_perturbed, g_perturbed = self.gradient(batch)
        self.descend(g_perturbed)
        return {
            "loss": loss.detach(),
            "loss_perturbed": loss_perturbed,
            "loss_variance": variance.detach(),
            "epsilon_norm": epsilon_norm,
        }

    def variance(self, losses: Tensor, weights: Tensor) -> Tensor:
        """Variance of the domain losses [K] -> []."""
        w = weights if self.sample_weighted else torch.full_like(losses, 1 / len(losses))
        return w @ (losses - w @ losses) ** 2
