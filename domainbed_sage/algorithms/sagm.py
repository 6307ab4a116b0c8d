"""Sharpness-aware gradient matching."""

from typing import Annotated

from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice, Power
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import SMALLEST_NORM
from domainbed_sage.geometry.vectors import add_, norm, scale, scale_


@register("SAGM")
class SAGM(Algorithm):
    """The sum of the clean gradient and the gradient at θ + ε, where ε = ρ g / ‖g‖₂ - α g.

    With ρ = α = 0 it is ERM (with `halve`); with α = 0 it averages the steps of ERM and SAM.

    Source: Wang et al., CVPR 2023, Eq. 7 and Algorithm 1; Wang-pengfei/SAGM `sagm.py`.

    Args:
        problem: see `Problem`.
        rho: radius ρ.
        alpha: step α of the gradient matching; the authors use 1e-3 (PACS, VLCS, TerraIncognita) and 5e-4
            (OfficeHome, DomainNet).
        halve: descend along the mean of the two gradients, as the authors' code does, not along their sum.

    Differences from the paper:
        1. The paper's objective has unit weights, so its gradient is the sum g + g⁺; the authors' code halves it, and
           so does our default, because their published settings belong to it. Adam does not see the factor except
           through its coupled weight decay. ``halve=False`` is the paper's.
        2. The authors' code ignores its hyperparameter ρ (a constant 0.05); here it counts.
        3. The code's search range for α, {0.01, 0.02, 0.05, 0.1}, leaves out its default; ours contains it.
    """

    paper = "Wang et al., CVPR 2023"
    passes_per_step = 2

    def __init__(
        self,
        problem: Problem,
        *,
        rho: Annotated[float, Field(ge=0), Choice(0.01, 0.02, 0.05, 0.1)] = 0.05,
        alpha: Annotated[float, Field(ge=0), Power(10, -4, -2)] = 1e-3,
        halve: bool = True,
    ) -> None:
        super().__init__(problem)
        self.rho, self.alpha, self.weight = rho, alpha, 0.5 if halve else 1.0

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        loss, g = self.gradient(batch)
        epsilon = scale(self.rho / (norm(g) + SMALLEST_NORM) - self.alpha, g)
        epsilon_norm = norm(epsilon)
        with self.perturbed(epsilon):
            loss_perturbed, g_perturbed = self.gradient(batch)
        self.descend(scale_(self.weight, add_(g_perturbed, g)))
        return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": epsilon_norm}
