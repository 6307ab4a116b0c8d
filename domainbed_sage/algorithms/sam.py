"""Sharpness-aware minimisation."""

from typing import Annotated

from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import l2_ascent_
from domainbed_sage.geometry.vectors import norm


@register("SAM")
class SAM(Algorithm):
    """The gradient at θ + ε with ε = ρ g / ‖g‖₂, applied at θ. With ρ = 0 it is ERM.

    Source: Foret et al., ICLR 2021, Eq. 2 and Algorithm 1; DISAM's `SAM.py`.

    Args:
        problem: see `Problem`.
        rho: radius ρ of the perturbation, in the Euclidean norm over all parameters.

    Differences from the paper: none. Differences between public codes: the norm is guarded by + 1e-12 (SWAD's forks
    have no guard), and the clean weights are put back as they were (SWAD's forks subtract ε).
    """

    paper = "Foret et al., ICLR 2021"
    passes_per_step = 2

    def __init__(
        self, problem: Problem, *, rho: Annotated[float, Field(ge=0), Choice(0.01, 0.02, 0.05, 0.1)] = 0.05
    ) -> None:
        super().__init__(problem)
        self.rho = rho

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        loss, g = self.gradient(batch)
        epsilon = l2_ascent_(g, self.rho)
        epsilon_norm = norm(epsilon)
        with self.perturbed(epsilon):
            loss_perturbed, g_perturbed = self.gradient(batch)
        self.descend(g_perturbed)
        return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": epsilon_norm}
