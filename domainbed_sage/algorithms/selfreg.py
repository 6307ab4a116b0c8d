"""Self-supervised contrastive regularization."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.data.batch import DomainBatch

FEATURE_WEIGHT = 0.3
BETA = 0.5
RESNET50 = 2048  # features that are not doubled in the projection


@register("SelfReg")
class SelfReg(Algorithm):
    """The loss plus distances of logits and projected features to those of other rows of the same class.

    Rows are sorted by class and shuffled twice within each class, which gives every row two partners. With logits o,
    features z, their projection c, the partners' o₁, c₁, o₂, c₂, and λ ~ Beta(½, ½), the loss is
    CE + min(CE, 1) [λ d(o₁, c₁) + (1 - λ) d(λ o₁ + (1 - λ) o₂, λ c₁ + (1 - λ) c₂)], where d(o', c') is the mean squared
    distance of o from o' plus 0.3 times that of z from c'. The factor min(CE, 1) has no gradient.

    Source: Kim et al., ICCV 2021; DomainBed `algorithms.py`, class SelfReg.

    Args:
        problem: see `Problem`.

    Differences from the paper: the projection stays as it was drawn, because DomainBed's optimizer does not have its
    weights; neither stochastic weight averaging nor the curriculum over domains. Differences from public codes: none.
    On CLIP, features of length 1 (unless ``normalize_features`` is False) are compared with projections that a
    BatchNorm has brought to length √512, and logits are cosines times 100, whose distances outweigh the loss.
    """

    paper = "Kim et al., ICCV 2021"
    min_rows = 2

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        _, D = problem.classes_and_features(self.name)
        self.project = self.add_network("cdpl", projection(D, D if D == RESNET50 else 2 * D))

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        lam, order = self.draws.beta("lam", BETA, 1)[0], self.draws.sort("order", batch.y)
        features, y = self.features(batch.x)[order], batch.y[order]
        first, second = self.draws.within("perm1", y), self.draws.within("perm2", y)
        logits, projected = self.classify(features), self.in_precision(self.project, features)

        def apart(logits_2: Tensor, projected_2: Tensor) -> Tensor:
            return F.mse_loss(logits, logits_2) + FEATURE_WEIGHT * F.mse_loss(features, projected_2)

        mixed = [torch.lerp(t[second], t[first], lam) for t in (logits, projected)]
        distance = lam * apart(logits[first], projected[first]) + (1 - lam) * apart(*mixed)
        nll = F.cross_entropy(logits, y)
        loss, g = self.gradient_of(nll + nll.detach().clamp_max(1.0) * distance)
        self.descend(g)
        return {"loss": loss, "nll": nll.detach()}


def projection(features: int, hidden: int) -> nn.Sequential:
    """Projection of features [N, D] to [N, D]."""
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, features),
        nn.BatchNorm1d(features),
    )
