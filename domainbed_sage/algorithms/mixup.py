"""Mixup between domains."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Power
from domainbed_sage.data.batch import DomainBatch


@register("Mixup")
class Mixup(Algorithm):
    """The loss of mixtures λ x + (1 - λ) x' of every domain with the next one, in random order of the domains.

    Row by row, a mixture costs λ times the cross-entropy with the label of x, and 1 - λ times that with x's partner's.
    λ ~ Beta(α, α) is drawn for every pair of domains. Of domains of different sizes, the first rows are mixed.

    Source: Zhang et al., ICLR 2018 (mixup), for domains Yan et al., 2020; DomainBed `algorithms.py`, class Mixup.

    Args:
        problem: see `Problem`.
        mixup_alpha: α.

    Differences from the paper: images are mixed, not features, and no adversary is trained, as in DomainBed.
    Differences from public codes: one forward pass over all mixtures, where DomainBed passes pair by pair; that matters
    to BatchNorm with batch statistics alone.
    """

    paper = "Yan et al., Improve unsupervised domain adaptation with mixup training 2020"
    min_domains = 2

    def __init__(self, problem: Problem, *, mixup_alpha: Annotated[float, Field(gt=0), Power(10, -1, 1)] = 0.2) -> None:
        super().__init__(problem)
        self.alpha = mixup_alpha

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        domains, K = list(batch.domains()), len(batch.sizes)
        order, lambdas = self.draws.permutation("perm", K), self.draws.beta("lam", self.alpha, K)
        pairs = [(domains[order[i]], domains[order[(i + 1) % K]]) for i in range(K)]
        sizes = [min(len(y), len(y2)) for (_, y), (_, y2) in pairs]
        mixed = [
            lam * x[:n] + (1 - lam) * x2[:n] for lam, n, ((x, _), (x2, _)) in zip(lambdas, sizes, pairs, strict=True)
        ]
        logits = self.forward(torch.cat(mixed)).split(sizes)
        losses = [
            lam * F.cross_entropy(z, y[:n]) + (1 - lam) * F.cross_entropy(z, y2[:n])
            for lam, n, z, ((_, y), (_, y2)) in zip(lambdas, sizes, logits, pairs, strict=True)
        ]
        loss, g = self.gradient_of(torch.stack(losses).mean())
        self.descend(g)
        return {"loss": loss}
