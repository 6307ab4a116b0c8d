"""Empirical risk minimisation."""

from domainbed_sage.algorithms.base import Algorithm, Metrics
from domainbed_sage.algorithms.registry import register
from domainbed_sage.data.batch import DomainBatch


@register("ERM")
class ERM(Algorithm):
    """Gradient of the mean loss over all rows of all source domains, then one step of the base optimiser.

    Source: Vapnik, 1998; DomainBed `algorithms.py`, class ERM.

    Differences from the paper: none.
    """

    paper = "Vapnik, Statistical Learning Theory 1998"

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        loss, g = self.gradient(batch)
        self.descend(g)
        return {"loss": loss}
