"""Matching the distributions of the features of every two domains: MMD, and CORAL."""

from abc import abstractmethod
from itertools import combinations
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Power
from domainbed_sage.data.batch import DomainBatch

KERNEL_GAMMAS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


class MatchedFeatures(Algorithm):
    """The mean of the domain losses plus γ times the mean distance of the features of two domains, over all pairs."""

    def __init__(self, problem: Problem, *, mmd_gamma: Annotated[float, Field(ge=0), Power(10, -1, 1)] = 1.0) -> None:
        super().__init__(problem)
        self.mmd_gamma = mmd_gamma

    @abstractmethod
    def distances(self, features: list[Tensor]) -> list[Tensor]:
        """Distance of every two domains, [] each, from their features [n_k, D]."""

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        features = self.features(batch.x)
        logits = self.classify(features).split(batch.sizes)
        losses = [F.cross_entropy(z, y) for z, (_, y) in zip(logits, batch.domains(), strict=True)]
        loss = torch.stack(losses).mean()
        distances = self.distances(list(features.split(batch.sizes)))
        penalty = torch.stack(distances).mean() if distances else torch.zeros_like(loss)
        _, g = self.gradient_of(loss + self.mmd_gamma * penalty)
        self.descend(g)
        return {"loss": loss.detach(), "penalty": penalty.detach()}


@register("MMD")
class MMD(MatchedFeatures):
    """Maximum mean discrepancy: mean_k L_k + γ mean_{i<j} MMD²(features of i, features of j).

    MMD² is the biased estimate, mean k(x, x') + mean k(y, y') - 2 mean k(x, y), with k(a, b) = Σ_s exp(-s ‖a - b‖²)
    over s = 0.001, 0.01, …, 1000. With γ = 0 and equal sizes, or with one domain, it is ERM.

    Source: Li et al., CVPR 2018 (MMD-AAE); DomainBed `algorithms.py`, class MMD.

    Args:
        problem: see `Problem`.
        mmd_gamma: weight γ. The kernels' widths are fixed, so the scale of the features decides what they see: CLIP's
            features have length 1 here; with ``normalize_features`` False their length is about 10, distances are a
            hundred times larger in the square, and the wide kernels alone respond.

    Differences from the paper: DomainBed's, no autoencoder and no adversary. Differences from public codes: squared
    distances are sums of squared differences (DomainBed expands the square, which cancels in lower precision), and one
    forward pass over the whole minibatch, where DomainBed passes domain by domain; that matters to BatchNorm with batch
    statistics alone.
    """

    paper = "Li et al., CVPR 2018"

    def distances(self, features: list[Tensor]) -> list[Tensor]:
        """See `MatchedFeatures.distances`."""
        within = [mean_kernel(x, x) for x in features]
        between = [mean_kernel(x, y) for x, y in combinations(features, 2)]
        return [a + b - 2 * ab for (a, b), ab in zip(combinations(within, 2), between, strict=True)]


@register("CORAL")
class CORAL(MatchedFeatures):
    """Correlation alignment: mean_k L_k + γ mean_{i<j} [mean (μ_i - μ_j)² + mean (C_i - C_j)²].

    μ and C (n - 1 in the denominator) are mean and covariance of a domain's features; the inner means are over their D
    and D² entries. With γ = 0 and equal sizes, or with one domain, it is ERM.

    Source: Sun and Saenko, ECCV Workshops 2016 (Deep CORAL); DomainBed `algorithms.py`, class CORAL.

    Args:
        problem: see `Problem`.
        mmd_gamma: weight γ. The first term grows with the square of the features' length, the second with its fourth
            power. CLIP's features have length 1 here, which makes both tiny; with ``normalize_features`` False their
            length is about 10.

    Differences from the paper: the means are matched as well, and entries averaged instead of summed, as in DomainBed.
    Differences from public codes: one forward pass over the whole minibatch, as for `MMD`.
    """

    paper = "Sun and Saenko, ECCV Workshops 2016"
    min_rows = 2

    def distances(self, features: list[Tensor]) -> list[Tensor]:
        """See `MatchedFeatures.distances`."""
        moments = [(x.mean(0), covariance(x)) for x in features]
        return [
            (mean_x - mean_y).square().mean() + (C_x - C_y).square().mean()
            for (mean_x, C_x), (mean_y, C_y) in combinations(moments, 2)
        ]


def mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Mean of k(x_i, y_j) over all pairs of rows of x [n, D] and y [m, D] []."""
    squared = (x[:, None] - y[None]).square().sum(2)
    return torch.stack([torch.exp(-gamma * squared).mean() for gamma in KERNEL_GAMMAS]).sum()


def covariance(x: Tensor) -> Tensor:
    """Covariance of the columns of x [n, D], with n - 1 in the denominator [D, D]."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)
