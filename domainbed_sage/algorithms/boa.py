"""Billiard optimisation in a Krylov subspace."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import SMALLEST_NORM, l2_ascent_
from domainbed_sage.geometry.vectors import Vector, add_, dot, norm, orthogonal_, scale, scale_

GOLDEN = (5**0.5 - 1) / 2


@register("BOA")
class BOA(Algorithm):
    """Train by ERM or SAM to θ₀; then wander through the region of low loss around it, like a billiard ball.

    The ball moves in the Krylov space of g, Hg, …, H^(K-1) g, with the gradient g and the Hessian H of the loss at θ₀,
    and starts along p = -Σ_k H^k g. An update is one bounce: a line search goes to the wall L(θ + α p) = L(θ₀) + δ,
    where p ← p - 2 (n·p) n, with the wall's normal n = -∇L, projected on the Krylov space and of length 1. During the
    warm-up it is ERM or SAM.

    Source: Li et al., ICLR 2026 (Exploring Mode Connectivity in Krylov Subspace for Domain Generalization). There is no
    public code, and this is a reading from summaries, with values of our own for what they do not give.

    Args:
        problem: see `Problem`.
        warmup: what trains to θ₀.
        warmup_steps: number of its steps; every further step of the run is a bounce.
        rho: radius of SAM in the warm-up.
        delta: δ, how far the walls lie above the loss at θ₀.
        krylov_dim: K.
        hvp_radius: e of the finite differences H v ≈ (∇L(θ₀ + e v / ‖v‖) - ∇L(θ₀)) ‖v‖ / e.
        step: first α of the line search.
        brackets: losses measured to bracket the wall: α doubles until the loss is above it, then the interval halves.
        sections: losses measured to close in on it by golden section of |L - L(θ₀) - δ|, after the two to begin with.

    Differences from the paper, all of them choices of this reading:
        1. Every bounce has the minibatch of its step: both L(θ₀), measured anew, and L(θ + α p) are of these rows. The
           Krylov space is that of the first one and stays.
        2. The paper chooses the best bounce on data of the held-out domain. Here selection chooses among evaluations,
           as for every other method.
        3. The paper trains prompts of a few thousand numbers; here p and the K vectors are of all trained weights.
        4. p is reflected only where it points out of the region (n·p < 0); an outlying minibatch may put θ outside.
        5. The basis is made orthonormal by Gram-Schmidt for the projection. Learning rate and weight decay of the base
           optimiser act in the warm-up alone.
    """

    paper = "Li et al., ICLR 2026"
    experimental = True

    def __init__(
        self,
        problem: Problem,
        *,
        warmup: Literal["ERM", "SAM"] = "SAM",
        warmup_steps: Annotated[int, Field(ge=1)] = 4900,
        rho: Annotated[float, Field(ge=0)] = 0.05,
        delta: Annotated[float, Field(gt=0)] = 0.05,
        krylov_dim: Annotated[int, Field(ge=1)] = 5,
        hvp_radius: Annotated[float, Field(gt=0)] = 1e-2,
        step: Annotated[float, Field(gt=0)] = 0.5,
        brackets: Annotated[int, Field(ge=1)] = 6,
        sections: Annotated[int, Field(ge=0)] = 6,
    ) -> None:
        super().__init__(problem)
        if 0 < problem.steps <= warmup_steps:
            raise UserError(
                f"BOA's warm-up of warmup_steps = {warmup_steps} leaves no step to search in. Found {problem.steps} "
                f"steps. Lower warmup_steps."
            )
        self.radius, self.warmup_steps = rho if warmup == "SAM" else None, warmup_steps
        self.delta, self.krylov_dim, self.hvp_radius = delta, krylov_dim, hvp_radius
        self.first_alpha, self.brackets, self.sections = step, brackets, sections
        self.ball = self.kept["ball"] = _Ball(self.params[0].device)

    @classmethod
    def passes(cls, steps: int, hparams: Mapping[str, Any]) -> int:
        """See `Algorithm.passes`; most passes of a bounce are forward ones, whose FLOPs `sweep plan` knows."""
        warm = min(steps, hparams["warmup_steps"])
        bounces, of_bounce = steps - warm, hparams["brackets"] + hparams["sections"] + 4
        start = hparams["krylov_dim"] if bounces else 0
        return warm * (2 if hparams["warmup"] == "SAM" else 1) + start + bounces * of_bounce

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        if self.step < self.warmup_steps:
            return self.warm_up(batch)
        if self.step == self.warmup_steps or not self.ball.direction:
            self.start(batch)
        with torch.no_grad():
            to_start = add_(scale(-1.0, self.params), self.ball.start)
            wall = self.loss_at(batch, to_start) + self.delta
            alpha = self.to_the_wall(batch, wall)
            add_(self.params, scale(alpha, self.ball.direction))
        loss, g = self.gradient(batch)
        self.ball.reflect(g)
        return {"loss": loss, "loss_wall": wall, "alpha": alpha}

    def warm_up(self, batch: DomainBatch) -> Metrics:
        """A step of ERM or SAM."""
        loss, g = self.gradient(batch)
        if self.radius is not None:
            with self.perturbed(l2_ascent_(g, self.radius)):
                _, g = self.gradient(batch)
        self.descend(g)
        return {"loss": loss}

    def start(self, batch: DomainBatch) -> None:
        """Take θ as θ₀, and make the Krylov space and the first direction there."""
        with self.model.frozen_statistics():
            _, g = self.gradient(batch)
        powers = [g]
        for _ in range(self.krylov_dim - 1):
            length = norm(powers[-1])
            with self.perturbed(scale(self.hvp_radius / (length + SMALLEST_NORM), powers[-1])):
                _, there = self.gradient(batch)
            powers.append(scale_(length / self.hvp_radius, add_(there, g, -1.0)))
        direction = scale(-1.0, g)
        for v in powers[1:]:
            add_(direction, v, -1.0)
        self.ball.start = tuple(p.detach().clone() for p in self.params)
        self.ball.direction, self.ball.basis = direction, _orthonormal_(powers)

    def loss_at(self, batch: DomainBatch, offset: Vector) -> Tensor:
        """Loss of the batch at θ + offset, whose value is lost []."""
        with self.perturbed(offset):
            return self.loss(batch.x, batch.y)

    def to_the_wall(self, batch: DomainBatch, wall: Tensor) -> Tensor:
        """The α at which the loss along the direction reaches the wall; 0 ≤ α []."""

        def height(alpha: Tensor) -> Tensor:
            return self.loss_at(batch, scale(alpha, self.ball.direction)) - wall

        low, high = torch.zeros_like(wall), torch.full_like(wall, float("inf"))
        alpha = torch.full_like(wall, self.first_alpha)
        for _ in range(self.brackets):
            inside = height(alpha) < 0
            low, high = torch.where(inside, alpha, low), torch.where(inside, high, alpha)
            alpha = torch.where(high.isinf(), 2 * alpha, (low + high) / 2)
        high = torch.where(high.isinf(), low, high)  # no wall in sight: as far as was seen
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        at_left, at_right = height(left).abs(), height(right).abs()
        for _ in range(self.sections):
            lower = at_left < at_right
            low, high = torch.where(lower, low, left), torch.where(lower, right, high)
            new = torch.where(lower, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
            at_new = height(new).abs()
            left, right = torch.where(lower, new, right), torch.where(lower, left, new)
            at_left, at_right = torch.where(lower, at_new, at_right), torch.where(lower, at_left, at_new)
        return (low + high) / 2


class _Ball:
    """Where the search began, the orthonormal basis of its space, and the direction of the ball; empty before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start: Vector = ()
        self.direction: Vector = ()
        self.basis: list[Vector] = []

    def reflect(self, gradient: Vector) -> None:
        n = scale(-dot(self.basis[0], gradient), self.basis[0])
        for b in self.basis[1:]:
            add_(n, scale(-dot(b, gradient), b))
        scale_(1 / (norm(n) + SMALLEST_NORM), n)
        outward = dot(n, self.direction).clamp_max(0)
        add_(self.direction, scale_(-2 * outward, n))

    def state_dict(self) -> dict[str, Any]:
        return {"start": list(self.start), "direction": list(self.direction), "basis": [list(b) for b in self.basis]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.start, self.direction, *self.basis = (
            tuple(t.to(self.device) for t in vector) for vector in (state["start"], state["direction"], *state["basis"])
        )


def _orthonormal_(vectors: list[Vector]) -> list[Vector]:
    """Gram-Schmidt, in the memory of the vectors; what depends on those before becomes 0."""
    for k, v in enumerate(vectors):
        before = norm(v)
        for b in vectors[:k]:
            orthogonal_(v, b)
        length = norm(v)
        scale_(torch.where(length > 1e-6 * before, 1 / length.clamp_min(SMALLEST_NORM), 0.0), v)
    return vectors
