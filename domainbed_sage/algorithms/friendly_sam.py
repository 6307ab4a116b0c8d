"""Friendly sharpness-aware minimisation."""

from typing import Annotated

from pydantic import Field

from domainbed_sage.algorithms.averages import Average
from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import l2_ascent_
from domainbed_sage.geometry.vectors import add_, norm, scale


@register("FriendlySAM")
class FriendlySAM(Algorithm):
    """SAM whose ascent leaves out the full gradient: ε = ρ d / ‖d‖₂ with d = g - σ m, m the moving average of g.

    After the ascent m ← λ m + (1 - λ) g; at the first step d = g and m = g. With σ = 0 it is SAM; with ρ = 0, ERM.

    Source: Li et al., CVPR 2024, Algorithm 1; nblt/F-SAM `utils.py`.

    Args:
        problem: see `Problem`.
        rho: radius ρ of the perturbation, in the Euclidean norm over all parameters.
        sigma: share σ of the moving average that is taken off.
        lmbda: decay λ of the moving average.

    Differences from the paper: none. Differences from the authors' code: none; m is the average before this step's
    gradient there too. Defaults are those of its command line, `rho` is searched as SAM's.
    """

    paper = "Li et al., CVPR 2024"
    passes_per_step = 2

    def __init__(
        self,
        problem: Problem,
        *,
        rho: Annotated[float, Field(ge=0), Choice(0.01, 0.02, 0.05, 0.1)] = 0.1,
        sigma: float = 1.0,
        lmbda: Annotated[float, Field(ge=0, le=1)] = 0.95,
    ) -> None:
        super().__init__(problem)
        self.rho, self.sigma, self.lmbda = rho, sigma, lmbda
        self.average = self.kept["average"] = Average(self.params)

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        loss, g = self.gradient(batch)
        d = add_(scale(-self.sigma, self.average.vector), g)  # the average is 0 at the first step
        self.average.follow(g, self.lmbda)
        epsilon = l2_ascent_(d, self.rho)
        epsilon_norm = norm(epsilon)
        with self.perturbed(epsilon):
            loss_perturbed, g_perturbed = self.gradient(batch)
        self.descend(g_perturbed)
        return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": epsilon_norm}
