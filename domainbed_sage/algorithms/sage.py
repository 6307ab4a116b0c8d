"""Spectral-aware gradient-aligned exploration."""

from functools import partial
from typing import Annotated

from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Power
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import spectral_ascent
from domainbed_sage.geometry.polar import PolarDtype, PolarMethod
from domainbed_sage.geometry.vectors import add_noise_, agreement, norm


@register("SAGE")
class SAGE(Algorithm):
    """The gradient at θ + ε, with ε spectral, plus noise whose size grows with the disagreement of the domains.

    With ρ = γ = 0 it is ERM; with one source domain there is no noise; with ρ = 0 it is GGA-L with Gaussian noise.

    Source: SAGE, Section 3 and Algorithm 1; line numbers below are Algorithm 1's.

    Args:
        problem: see `Problem`.
        rho: perturbation radius ρ; a matrix W moves by ρ ‖W‖_F in each of its singular directions.
        gamma: noise scale γ; the noise has standard deviation β = γ (1 - S), at most γ K / (K - 1).
        ns: how the polar factor is computed: ``quintic`` (Algorithm 1), ``cubic`` (Eq. 7), ``polar_express``, ``svd``,
            or ``svd_rank``.
        ns_steps: Newton-Schulz iterations T.
        ns_dtype: arithmetic of the iterations: ``full`` is that of the weights, as in the authors' prototype for domain
            generalization; ``bf16x3`` is nearly as exact and faster on tensor cores; ``bf16`` and ``fp16`` are faster
            still and farther off, see `polar_factor`.
        orthogonalize: ablation of Fig. 3: False leaves the gradient's own spectrum, G / ‖G‖_F.
        scale_by_weight: ablation of Fig. 3: False drops the factor ‖W‖_F.
        noise: ablation of Fig. 3: False adds no noise, as γ = 0 does.

    Differences from the paper:
        1. Eq. 7 and «NewtonSchulz5 (Muon logic)» are different iterations; the default is the algorithm's.
        2. The clean weights are put back as they were; line 28's θ ← θ - ε does not give every bit back.
        3. What the paper leaves open: w_k = n_k / N; S is over all trainable parameters, head included; a tensor of
           more than two dimensions is viewed as [first dimension, rest]; ‖W‖_F ≥ 1e-12.
        4. The noise enters before the base optimiser, as line 29 says, so Adam preconditions it.
    """

    paper = "Spectral-Aware Gradient-Aligned Exploration, 2026"
    passes_per_step = 2

    def __init__(
        self,
        problem: Problem,
        *,
        rho: Annotated[float, Field(ge=0), Power(10, -7, -4)] = 1e-6,
        gamma: Annotated[float, Field(ge=0), Power(10, -7, -4)] = 1e-6,
        ns: PolarMethod = "quintic",
        ns_steps: Annotated[int, Field(ge=0, le=100)] = 5,
        ns_dtype: PolarDtype = "full",
        orthogonalize: bool = True,
        scale_by_weight: bool = True,
        noise: bool = True,
    ) -> None:
        super().__init__(problem)
        self.rho, self.gamma = rho, gamma if noise else 0.0
        self.ascent = partial(
            spectral_ascent,
            method=ns,
            steps=ns_steps,
            dtype=ns_dtype,
            orthogonalize=orthogonalize,
            scale_by_weight=scale_by_weight,
        )

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        # Phase 1 (lines 4-9): one gradient per domain, and their sample-weighted sum.
        losses, inner_products, g = self.domain_moments(batch)
        # Phase 2 (lines 11-12): gradient agreement S and noise scale beta.
        S = agreement(inner_products)
        beta = self.gamma * (1 - S)
        # Phase 3 (lines 14-21): spectral perturbation, layer by layer.
        epsilon = self.ascent(self.params, g, self.rho)
        epsilon_norm = norm(epsilon)
        del g  # the perturbed pass needs the memory
        # Phases 4-6 (lines 23-28): gradient at theta + epsilon; leaving the block restores theta.
        with self.perturbed(epsilon):
            loss_perturbed, g_perturbed = self.gradient(batch)
        # Phases 6-7 (lines 29-31): disagreement noise, then one step of the base optimiser.
        self.descend(add_noise_(g_perturbed, beta, partial(self.draws.normal, "xi")))
        return {
            "loss": batch.weights @ losses,
            "loss_perturbed": loss_perturbed,
            "agreement": S,
            "beta": beta,
            "epsilon_norm": epsilon_norm,
        }
