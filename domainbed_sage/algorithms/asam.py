"""Adaptive sharpness-aware minimisation."""

from typing import Annotated, Literal

import torch
from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import SMALLEST_NORM
from domainbed_sage.geometry.vectors import Vector, norm, scale_


@register("ASAM")
class ASAM(Algorithm):
    """SAM in units of the weights: ε = ρ T² g / ‖T g‖₂ with T = |w| + η, elementwise; the gradient at θ + ε.

    Rescaling weights without changing the network's function leaves ‖T⁻¹ ε‖ = ρ alone. With ρ = 0 it is ERM; with
    T = 1, of parameters without a weight in their name, it is SAM.

    Source: Kwon et al., ICML 2021, Eq. 3 and Algorithm 1; SamsungLabs/ASAM `asam.py`; davda54/sam `sam.py`.

    Args:
        problem: see `Problem`.
        rho: radius ρ, in the norm ‖T⁻¹ ε‖.
        eta: η, added to |w|; counts in the reading ``samsung`` alone.
        reading: of T. ``samsung``, the authors' code: |w| + η for parameters whose name contains «weight», 1 for the
            others. ``davda54``, the widely used port (``adaptive=True``): |w| for all parameters.

    Differences from the paper: none in the first reading. CLIP's tower has matrices without «weight» in their names,
    e.g. its projection and positional embedding; by the authors' rule T = 1 there. The search range is a part of the
    paper's grid.
    """

    paper = "Kwon et al., ICML 2021"
    passes_per_step = 2

    def __init__(
        self,
        problem: Problem,
        *,
        rho: Annotated[float, Field(ge=0), Choice(0.1, 0.2, 0.5, 1.0, 2.0)] = 0.5,
        eta: Annotated[float, Field(ge=0)] = 0.01,
        reading: Literal["samsung", "davda54"] = "samsung",
    ) -> None:
        super().__init__(problem)
        self.rho, self.eta = rho, eta if reading == "samsung" else 0.0
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        self.scaled = [reading == "davda54" or "weight" in name for name in names]

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        loss, g = self.gradient(batch)
        epsilon = self.ascent_(g)
        epsilon_norm = norm(epsilon)
        with self.perturbed(epsilon):
            loss_perturbed, g_perturbed = self.gradient(batch)
        self.descend(g_perturbed)
        return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": epsilon_norm}

    @torch.no_grad()
    def ascent_(self, g: Vector) -> Vector:
        """ρ T² g / ‖T g‖, in the memory of g."""
        self._scale_(g)
        length = norm(g) + SMALLEST_NORM
        self._scale_(g)
        return scale_(self.rho / length, g)

    def _scale_(self, g: Vector) -> None:
        for t, w, scaled in zip(g, self.params, self.scaled, strict=True):
            if scaled:
                t.mul_(w.abs().add_(self.eta))
