"""The pretrained model as it is."""

import logging

import torch

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.data.batch import DomainBatch

log = logging.getLogger(__name__)


@register("ZeroShot")
class ZeroShot(Algorithm):
    """No update: every weight and statistic stays as the model was built. The reference for what training adds.

    With CLIP and its text-initialised head this is zero-shot classification; one step is enough for the numbers.

    Source: Radford et al., ICML 2021, Section 3.1.

    Args:
        problem: see `Problem`.

    Differences from the paper: one prompt (`template` of the model) instead of an ensemble. The loss of each minibatch
    is measured and logged, without a gradient.
    """

    paper = "Radford et al., ICML 2021"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.params = ()
        if not problem.model.class_features:
            log.warning("The classifier is not made from the names of the classes, so ZeroShot measures its start.")

    @torch.no_grad()
    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        with self.model.frozen_statistics():
            return {"loss": self.loss(batch.x, batch.y)}
