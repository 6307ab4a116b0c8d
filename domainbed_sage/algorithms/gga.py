"""Gradient-guided annealing, and its variant by Langevin-like noise (GGA-L)."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.hparams import Choice, Power
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.vectors import Vector, add_, add_noise_, agreement, gram, pairwise_cosines


@register("GGA")
class GGA(Algorithm):
    """Early in training, search near θ for weights at which the domain gradients agree better; otherwise ERM.

    In the steps `start` … `end` (both included) `trials` candidates θ + U(-r, r) of the featurizer are compared by the
    smallest pairwise cosine of their domain gradients. A candidate is accepted when that cosine rises above the best
    so far and its loss is less than `tolerance` above the reference. One ordinary step follows from the best one.
    With r = 0, one source domain, or outside the window it is ERM.

    Source: Ballas and Diou, CVPR 2025; aristotelisballas/GGA `algorithms.py`, class ERM_GGA.

    Args:
        problem: see `Problem`.
        radius: half width r of the neighbourhood, per weight (`neighborhoodSize` of the code).
        start: first step of the search.
        end: last step of the search.
        trials: candidates per step.
        tolerance: allowed rise of the loss.
        random_walk: the released code's search, see below.

    Differences from the paper: every candidate is drawn around the current θ, and its loss is compared with the loss
    at θ. The released code differs in both: a rejected perturbation stays in the weights, so that the next candidate
    starts from it (a random walk, reset to θ by an acceptance), and the reference is the loss of the last accepted
    candidate: ``random_walk=True``. Temperatures in that code are constant 1 and have no effect; here there are none.
    One search step costs `trials` forward and backward passes.
    """

    paper = "Ballas and Diou, CVPR 2025"
    repeated = "trials"

    def __init__(
        self,
        problem: Problem,
        *,
        radius: Annotated[float, Field(ge=0), Power(10, -6, -4)] = 1e-5,
        start: Annotated[int, Field(ge=0)] = 100,
        end: Annotated[int, Field(ge=0)] = 200,
        trials: Annotated[int, Field(ge=1)] = 250,
        tolerance: float = 0.1,
        random_walk: bool = False,
    ) -> None:
        super().__init__(problem)
        self.radius, self.start, self.end, self.trials = radius, start, end, trials
        self.tolerance, self.random_walk = tolerance, random_walk
        featurizer = {id(p) for p in self.model.featurizer.parameters()}
        self.searched = [id(p) in featurizer for p in self.params]

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        found = self.search(batch) if self.start <= self.step <= self.end else {}
        loss, g = self.gradient(batch)
        self.descend(g)
        return {"loss": loss} | found

    @classmethod
    def passes(cls, steps: int, hparams: Mapping[str, Any]) -> int:
        """See `Algorithm.passes`: every step of the window costs one pass more than its trials."""
        window = max(min(hparams["end"], steps - 1) - hparams["start"] + 1, 0)
        return steps + window * (hparams["trials"] + 1)

    def search(self, batch: DomainBatch) -> Metrics:
        """Move the weights to the best candidate; smallest cosine before and after, and the number of acceptances."""
        cosine, loss = self.smallest_cosine(batch)
        first, best, reference, accepted = cosine, cosine, loss, torch.zeros_like(loss)
        best_weights, centre = tuple(p.detach().clone() for p in self.params), self.params
        for _ in range(self.trials):
            with self.perturbed(self.offset(centre)) as weights:
                cosine, loss = self.smallest_cosine(batch)
            accept = (loss - reference < self.tolerance) & (cosine > best)
            best, best_weights = torch.where(accept, cosine, best), _where(accept, weights, best_weights)
            accepted = accepted + accept
            if self.random_walk:
                reference, centre = torch.where(accept, loss, reference), _where(accept, self.params, weights)
        with torch.no_grad():
            torch._foreach_copy_(list(self.params), list(best_weights))
        return {"cosine_before": first, "cosine_after": best, "accepted": accepted}

    @torch.no_grad()
    def offset(self, centre: Vector) -> Vector:
        """Difference to θ of a new candidate around `centre`: θ itself, or the last candidate in the random walk."""
        drawn = tuple(
            self.draws.uniform("uniform", p).mul_(2).sub_(1).mul_(self.radius) if searched else torch.zeros_like(p)
            for p, searched in zip(self.params, self.searched, strict=True)
        )
        walked = (c - p for c, p in zip(centre, self.params, strict=True))
        return add_(drawn, tuple(walked)) if self.random_walk else drawn

    def smallest_cosine(self, batch: DomainBatch) -> tuple[Tensor, Tensor]:
        """Smallest pairwise cosine of the domain gradients (1 with one domain), and the loss of the batch."""
        losses, grads = self.domain_gradients(batch)
        cosines = pairwise_cosines(gram(grads))
        return cosines.min() if len(cosines) else losses.new_ones(()), batch.weights @ losses


@register("GGA_L")
class GGAL(Algorithm):
    """The gradient plus noise whose size grows with the disagreement of the domains: g + γ (1 - S) ξ.

    S is the mean pairwise cosine of the domain gradients. With γ = 0, or one source domain, it is ERM. SAGE without
    its spectral perturbation (ρ = 0) is GGA-L with ``noise="gaussian"``.

    Source: Ballas and Diou, CVPR 2025; aristotelisballas/GGA `algorithms.py`, class GGA_L.

    Args:
        problem: see `Problem`.
        gamma: noise scale γ.
        noise: distribution of ξ, elementwise.

    Differences from the paper: none by default, ξ ~ U(0, 1). The released code draws ξ ~ N(0, 1):
    ``noise="gaussian"``.
    """

    paper = "Ballas and Diou, CVPR 2025"

    def __init__(
        self,
        problem: Problem,
        *,
        gamma: Annotated[float, Field(ge=0), Choice(1e-4, 1e-3, 1e-2)] = 1e-3,
        noise: Literal["uniform", "gaussian"] = "uniform",
    ) -> None:
        super().__init__(problem)
        self.gamma = gamma
        self.noise = noise

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        losses, inner_products, g = self.domain_moments(batch)
        S = agreement(inner_products)
        beta = self.gamma * (1 - S)
        draw = self.draws.uniform if self.noise == "uniform" else self.draws.normal
        self.descend(add_noise_(g, beta, partial(draw, self.noise)))
        return {"loss": batch.weights @ losses, "agreement": S, "beta": beta}


@torch.no_grad()
def _where(condition: Tensor, a: Vector, b: Vector) -> Vector:
    return tuple(torch.where(condition, s, t) for s, t in zip(a, b, strict=True))
