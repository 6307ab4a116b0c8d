"""Invariant gradient variances (Fishr)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Power, Uniform
from domainbed_sage.data.batch import DomainBatch


class Averages(nn.Module):
    """Moving averages m [K, P] of the variances of the domains, from 0."""

    m: Tensor

    def __init__(self, num_domains: int, entries: int) -> None:
        super().__init__()
        self.register_buffer("m", torch.zeros(num_domains, entries))


@register("Fishr")
class Fishr(Algorithm):
    """The loss plus λ times how far the domains' gradient variances at the classifier are apart.

    v_k is the variance, over the rows of domain k, of every entry of the gradient of a row's loss with respect to the
    classifier's weight and bias. With the moving averages m_k ← γ m_k + (1 - γ) v_k, the penalty is the mean over
    domains and entries of (m_k - mean_j m_j)² / (1 - γ)²; its gradient is through v_k alone. λ is 0 before step
    `penalty_anneal_iters`, where the optimizer starts anew; the averages run from step 0. With λ = 0, or one domain, it
    is ERM (but for that new start).

    Source: Rame et al., ICML 2022, Eq. 4 and 5; DomainBed `algorithms.py`, class Fishr.

    Args:
        problem: see `Problem`.
        lambda_weight: weight λ (`lambda` in DomainBed).
        penalty_anneal_iters: first step with the penalty.
        ema: decay γ of the averages.

    Differences from the paper: the mean over entries instead of the sum, and the division by (1 - γ)², as in DomainBed.
    Differences from public codes: gradients of the rows are written down (softmax minus one-hot, times the features)
    instead of asked of BackPACK. They are those of all entries, also of a classifier that is not trained. A constant
    scale of the logits, CLIP's 100, multiplies the gradients of the weight, and its fourth power the penalty.

    Raises:
        UserError: the classifier is not linear.
    """

    paper = "Rame et al., ICML 2022"

    def __init__(
        self,
        problem: Problem,
        *,
        lambda_weight: Annotated[float, Field(ge=0), Power(10, 1, 4)] = 1000.0,
        penalty_anneal_iters: Annotated[int, Field(ge=0), Uniform(0, 5000, integer=True)] = 1500,
        ema: Annotated[float, Field(ge=0, lt=1), Uniform(0.90, 0.99)] = 0.95,
    ) -> None:
        super().__init__(problem)
        self.lambda_weight, self.anneal_iters, self.ema = lambda_weight, penalty_anneal_iters, ema
        classes, features = problem.classes_and_features(self.name)
        self.biased = getattr(self.model.classifier, "bias", None) is not None
        entries = classes * (features + self.biased)
        self.averages = self.add_network("averages", Averages(problem.num_domains, entries))

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        features = self.features(batch.x)
        logits = self.classify(features)
        nll, penalty = F.cross_entropy(logits, batch.y), self.penalty(features, logits, batch)
        if self.step == self.anneal_iters:
            self.restart_optimizer()
        loss, g = self.gradient_of(nll + self.lambda_weight * penalty if self.step >= self.anneal_iters else nll)
        self.descend(g)
        return {"loss": loss, "nll": nll.detach(), "penalty": penalty.detach()}

    def penalty(self, features: Tensor, logits: Tensor, batch: DomainBatch) -> Tensor:
        """Distance of the domains' averaged variances [], after adding this minibatch to the averages."""
        gradients = self.row_gradients(features, logits, batch.y).split(batch.sizes)
        variances = torch.stack([g.var(0, correction=0) for g in gradients])  # [K, P]
        m = self.ema * self.averages.m + (1 - self.ema) * variances
        self.averages.m = m.detach()
        return ((m - m.mean(0)) / (1 - self.ema)).square().mean()

    def row_gradients(self, features: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Gradients of the rows' losses with respect to the classifier's weight and bias, side by side [N, P]."""
        residuals = logits.softmax(1) - F.one_hot(y, logits.shape[1])
        scale = getattr(self.model.classifier, "scale", 1.0)  # logits = scale · features Wᵀ + b
        of_weight = (residuals[:, :, None] * (scale * features)[:, None]).flatten(1)
        return torch.cat([of_weight, residuals], 1) if self.biased else of_weight
