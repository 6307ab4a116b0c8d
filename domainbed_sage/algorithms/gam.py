"""Gradient norm aware minimisation."""

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import SMALLEST_NORM
from domainbed_sage.geometry.vectors import Vector, add_, norm, orthogonal_, scale, scale_


@register("GAM")
class GAM(Algorithm):
    """First-order flatness: descend along gradients that also lower the largest gradient norm near θ.

    Four gradients: g₀ at θ; g₁ at θ + ρ' g₀/‖g₀‖; g₂ at θ₂ = θ + ρ h/‖h‖ with h = g₁ - g₀; g₃ at θ₂ + ρ' g₂/‖g₂‖.
    The optimiser gets h⁺ - γ (the part of h⁻ orthogonal to h⁺), with h⁺ = β₁ g₁ + β₃ g₃ and h⁻ = g₀ + |β₂| g₂.
    With β₁ = 1 and γ = 0 it is SAM of radius ρ'; with β₁ = 1 and ρ = 0 it is GSAM with α = γ (1 + |β₂|).

    Source: Zhang et al., CVPR 2023, Algorithm 2; xxgege/GAM `gam.py`, and `main_cifar.py` for the coefficients.

    Args:
        problem: see `Problem`.
        grad_rho: radius ρ' of the ascent steps.
        grad_norm_rho: radius ρ of the step towards larger gradient norms.
        grad_beta_0: β of the paper, which in the code acts through β₂ alone.
        grad_beta_1: α of the paper, weight of g₁.
        grad_beta_2: weight of g₂; null: 1 - β₀.
        grad_beta_3: weight of g₃; null: 1 - β₁.
        grad_gamma: weight γ of the orthogonal part.
        label_smoothing: of all losses, in the code's form: the Kullback-Leibler divergence of the prediction from
            1 - s on the label and s / (C - 1) on each other class.
        reading: ``paper``: h⁻ = β₀ g₀ + |β₂| g₂.

    Differences from the paper: h⁻, see `reading`. The coefficients are those that the authors ran for CIFAR-100 and
    ResNet; their argparse defaults (1, 1, -1, 1) were never used. They published none for domain generalization.
    """

    paper = "Zhang et al., CVPR 2023"
    passes_per_step = 4

    def __init__(
        self,
        problem: Problem,
        *,
        grad_rho: Annotated[float, Field(ge=0)] = 0.02,
        grad_norm_rho: Annotated[float, Field(ge=0)] = 0.2,
        grad_beta_0: float = 0.5,
        grad_beta_1: float = 0.6,
        grad_beta_2: float | None = None,
        grad_beta_3: float | None = None,
        grad_gamma: float = 0.03,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        reading: Literal["code", "paper"] = "code",
    ) -> None:
        super().__init__(problem)
        self.rho, self.rho_of_norm, self.gamma, self.smoothing = grad_rho, grad_norm_rho, grad_gamma, label_smoothing
        self.b0 = grad_beta_0 if reading == "paper" else 1.0
        self.b1 = grad_beta_1
        self.b2 = abs(1 - grad_beta_0 if grad_beta_2 is None else grad_beta_2)
        self.b3 = 1 - grad_beta_1 if grad_beta_3 is None else grad_beta_3

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy, or divergence from the smoothed labels, of the rows []."""
        return divergence(self.forward(x), y, self.smoothing) if self.smoothing else super().loss(x, y)

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        loss, g0 = self.gradient(batch)
        loss_perturbed, g1 = self.gradient_above(batch, g0)
        h = add_(scale(-1.0, g0), g1)
        with self.perturbed(scale_(self.rho_of_norm / (norm(h) + SMALLEST_NORM), h)):
            _, g2 = self.gradient(batch)
            _, g3 = self.gradient_above(batch, g2)
        plus = add_(scale_(self.b1, g1), g3, self.b3)
        minus = add_(scale_(self.b0, g0), g2, self.b2)
        self.descend(add_(plus, orthogonal_(minus, plus), -self.gamma))
        return {"loss": loss, "loss_perturbed": loss_perturbed}

    def gradient_above(self, batch: DomainBatch, g: Vector) -> tuple[Tensor, Vector]:
        """Loss and gradient at a distance ρ' along g."""
        with self.perturbed(scale(self.rho / (norm(g) + SMALLEST_NORM), g)):
            return self.gradient(batch)


def divergence(logits: Tensor, y: Tensor, smoothing: float) -> Tensor:
    """KL(q ‖ p) of p = softmax(logits) [N, C] and smoothed labels q, in the mean over the rows []."""
    classes = logits.shape[1]
    off = smoothing / (classes - 1) if classes > 1 else 0.0
    q = logits.new_full(logits.shape, off).scatter(1, y[:, None], 1 - smoothing)
    return F.kl_div(logits.log_softmax(1), q, reduction="batchmean")
