"""Spectral-aware gradient-aligned exploration."""

from typing import Annotated

import torch
from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.batch import DomainBatch
from domainbed_sage.geometry.perturb import spectral_ascent
from domainbed_sage.geometry.polar import PolarMethod
from domainbed_sage.geometry.vectors import agreement, gram, norm, weighted_mean
from domainbed_sage.hparams import Power


@register("SAGE")
class SAGE(Algorithm):
    """The gradient at θ + ε, with ε spectral, plus noise whose size grows with the disagreement of the domains.

    With ρ = γ = 0 it is ERM; with one source domain there is no noise; with ρ = 0 it is GGA-L with Gaussian noise.

    Source: SAGE, Section 3 and Algorithm 1; line numbers below are Algorithm 1's.

    Args:
        problem: see `Problem`.
        rho: perturbation radius ρ; a matrix W moves by ρ ‖W‖_F in each of its singular directions.
        gamma: noise scale γ; the noise has standard deviation β = γ (1 - S), at most γ K / (K - 1).
        ns: how the polar factor is computed: ``quintic`` (Algorithm 1), ``cubic`` (Eq. 7), or ``svd``.
        ns_steps: Newton-Schulz iterations T.
        orthogonalize: ablation of Fig. 3: False leaves the gradient's own spectrum, G / ‖G‖_F.
        scale_by_weight: ablation of Fig. 3: False drops the factor ‖W‖_F.
        noise: ablation of Fig. 3: False adds no noise, as γ = 0 does.

    Differences from the paper:
        1. Eq. 7 and «NewtonSchulz5 (Muon logic)» are different iterations; the default is the algorithm's.
        2. The weights are restored from a copy; line 28's θ ← θ - ε does not give every bit back.
        3. What the paper leaves open: w_k = n_k / N; S is over all trainable parameters, head included; a tensor of
           more than two dimensions is viewed as [first dimension, rest]; ‖W‖_F ≥ 1e-12.
        4. The noise enters before the base optimiser, as line 29 says, so Adam preconditions it.
    """

    passes_per_step = 2

    def __init__(
        self,
        problem: Problem,
        *,
        rho: Annotated[float, Field(ge=0), Power(10, -7, -4)] = 1e-6,
        gamma: Annotated[float, Field(ge=0), Power(10, -7, -4)] = 1e-6,
        ns: PolarMethod = "quintic",
        ns_steps: Annotated[int, Field(ge=0, le=100)] = 5,
        orthogonalize: bool = True,
        scale_by_weight: bool = True,
        noise: bool = True,
    ) -> None:
        super().__init__(problem)
        self.rho, self.gamma = rho, gamma if noise else 0.0
        self.ns, self.ns_steps = ns, ns_steps
        self.orthogonalize, self.scale_by_weight = orthogonalize, scale_by_weight

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        # Phase 1 (lines 4-9): one gradient per domain, and their sample-weighted sum.
        losses, grads = self.domain_gradients(batch)
        g = weighted_mean(grads, batch.sizes)
        # Phase 2 (lines 11-12): gradient agreement S and noise scale beta.
        S = agreement(gram(grads))
        beta = self.gamma * (1 - S)
        # Phase 3 (lines 14-21): spectral perturbation, layer by layer.
        epsilon = tuple(
            spectral_ascent(
                W,
                G,
                self.rho,
                method=self.ns,
                steps=self.ns_steps,
                orthogonalize=self.orthogonalize,
                scale_by_weight=self.scale_by_weight,
            )
            for W, G in zip(self.params, g, strict=True)
        )
        # Phases 4-6 (lines 23-28): gradient at theta + epsilon; leaving the block restores theta.
        with self.perturbed(epsilon):
            loss_perturbed, g_perturbed = self.gradient(batch)
        # Phases 6-7 (lines 29-31): disagreement noise, then one step of the base optimiser.
        self.descend(tuple(h + beta * torch.randn_like(h) for h in g_perturbed))
        return {
            "loss": batch.weights @ losses,
            "loss_perturbed": loss_perturbed,
            "agreement": S,
            "beta": beta,
            "epsilon_norm": norm(epsilon),
        }
