"""Surrogate-gap guided sharpness-aware minimisation."""

from typing import Annotated

from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice, Power
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import SMALLEST_NORM
from domainbed_sage.geometry.vectors import add_, norm, orthogonal_, scale


@register("GSAM")
class GSAM(Algorithm):
    """SAM's gradient g⁺ at θ + ε, less α times the part of the clean gradient g that is orthogonal to g⁺.

    The step lowers the perturbed loss and, without changing it to first order, the surrogate gap L(θ + ε) - L(θ).
    With α = 0 it is SAM; with ρ = 0 it is ERM.

    Source: Zhuang et al., ICLR 2022, Algorithm 1; juntang-zhuang/GSAM `gsam.py`.

    Args:
        problem: see `Problem`.
        rho: radius ρ of the perturbation, in the Euclidean norm over all parameters.
        alpha: weight α of the orthogonal part.

    Differences from the paper: ρ is constant. The paper lets it fall with the learning rate, which is constant in
    DomainBed's protocol; the DG fork of the authors' code (GGA's) keeps it at 0.05 too. That fork's α is 1e-3.
    """

    paper = "Zhuang et al., ICLR 2022"
    passes_per_step = 2

    def __init__(
        self,
        problem: Problem,
        *,
        rho: Annotated[float, Field(ge=0), Choice(0.01, 0.02, 0.05, 0.1)] = 0.05,
        alpha: Annotated[float, Field(ge=0), Power(10, -4, -1)] = 1e-3,
    ) -> None:
        super().__init__(problem)
        self.rho, self.alpha = rho, alpha

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        loss, g = self.gradient(batch)
        epsilon = scale(self.rho / (norm(g) + SMALLEST_NORM), g)
        epsilon_norm = norm(epsilon)
        with self.perturbed(epsilon):
            loss_perturbed, g_perturbed = self.gradient(batch)
        self.descend(add_(g_perturbed, orthogonal_(g, g_perturbed), -self.alpha))
        return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": epsilon_norm}
