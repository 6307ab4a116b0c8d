"""Representation self-challenging."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Uniform
from domainbed_sage.data.batch import DomainBatch


@register("RSC")
class RSC(Algorithm):
    """The loss of features from which, in some rows, those that speak most for the label are muted.

    Of a row, these are the features at which the derivative of the label's logit is at or above the (1 - f)-quantile of
    the row. Muted they are in the rows whose probability of the label would drop by the (1 - b)-quantile of all rows or
    more. Quantiles interpolate linearly, and the largest value is never below them: with f = b = 0 one feature of one
    row is muted.

    Source: Huang et al., ECCV 2020, Eq. 1 to 5; DomainBed `algorithms.py`, class RSC.

    Args:
        problem: see `Problem`.
        rsc_f_drop_factor: share f of the features.
        rsc_b_drop_factor: share b of the rows.

    Differences from the paper: the quantile is of the derivatives of single features, without pooling over positions,
    as in DomainBed. Differences from public codes: quantiles in float64 (DomainBed computes them so and rounds them
    to float32, which decides ties where a quantile is an order statistic), on the device.
    """

    paper = "Huang et al., ECCV 2020"

    def __init__(
        self,
        problem: Problem,
        *,
        rsc_f_drop_factor: Annotated[float, Field(ge=0, le=1), Uniform(0, 0.5)] = 1 / 3,
        rsc_b_drop_factor: Annotated[float, Field(ge=0, le=1), Uniform(0, 0.5)] = 1 / 3,
    ) -> None:
        super().__init__(problem)
        self.f_drop, self.b_drop = rsc_f_drop_factor, rsc_b_drop_factor

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        features = self.features(batch.x)
        kept = self.mask(features.requires_grad_(), batch.y)
        loss, g = self.gradient_of(F.cross_entropy(self.classify(features * kept), batch.y))
        self.descend(g)
        return {"loss": loss}

    def mask(self, features: Tensor, y: Tensor) -> Tensor:
        """1 where a feature is kept, 0 where it is muted [N, D]; the features require a gradient."""
        logits, label = self.classify(features), y[:, None]
        (slopes,) = torch.autograd.grad(logits.gather(1, label).sum(), features)
        with torch.no_grad():
            keep = slopes < quantile(slopes, 1 - self.f_drop)[:, None]
            drops = logits.softmax(1) - self.classify(features * keep).softmax(1)
            drops = drops.gather(1, label)[:, 0]
            unchallenged = drops < quantile(drops, 1 - self.b_drop)
            return (keep | unchallenged[:, None]).to(features.dtype)


def quantile(values: Tensor, q: float) -> Tensor:
    """The q-quantile along the last dimension, by linear interpolation in float64."""
    return torch.quantile(values.double(), q, dim=-1)
