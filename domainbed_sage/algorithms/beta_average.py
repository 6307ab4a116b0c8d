"""The Beta moving average of CLIPood, around any algorithm."""

from typing import Annotated

from pydantic import Field

from domainbed_sage.algorithms.around import Around, InnerHParams, InnerName
from domainbed_sage.algorithms.averages import Average, beta_weight
from domainbed_sage.algorithms.base import Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.data.batch import DomainBatch


@register("BetaAverage")
class BetaAverage(Around):
    """Train with another algorithm; end in the mean of all weights on the way, start included, by a Beta density.

    The weights after t of T steps have the weight of Beta(β, β) at (t + ½) / (T + 1). With β < 1 first and last ones
    count most; with β = 1 all count alike (stochastic weight averaging); with β → 0 it is the mean of both ends.

    Source: Shu et al., ICML 2023 (CLIPood), Section 3.3; thuml/CLIPood `engine.py`.

    Args:
        problem: see `Problem`.
        around: the algorithm that trains.
        around_hparams: hyperparameters of it; those that are not named have its defaults. A random search does not
            draw them.
        beta: β.

    Differences from the paper: the average without the paper's loss, classifier and schedule, see CLIPood for these.
    """

    paper = "Shu et al., ICML 2023"

    def __init__(
        self,
        problem: Problem,
        *,
        around: InnerName = "ERM",
        around_hparams: InnerHParams = {},  # noqa: B006 - never changed
        beta: Annotated[float, Field(gt=0)] = 0.5,
    ) -> None:
        super().__init__(problem, around, around_hparams)
        self.beta = beta
        self.average = self.kept["average"] = Average(self.averaged)
        self.average.add(self.averaged, beta_weight(0, problem.steps, beta))

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        metrics, t = self.update_inner(batch), self.step + 1
        self.average.add(self.averaged, beta_weight(t, max(self.problem.steps, t), self.beta))
        return metrics

    def finish(self) -> str:
        """See `Algorithm.finish`: the average."""
        self.average.copy_to(self.averaged)
        return f"Beta moving average of steps 0 … {self.step + 1}"
