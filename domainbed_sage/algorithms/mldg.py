"""Meta-learning for domain generalization."""

from itertools import cycle
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Choice, Power
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.vectors import Vector, add_, scale_


@register("MLDG")
class MLDG(Algorithm):
    """Σ over pairs of g_i(θ) + β g_j(θ'), divided by K: domain j after a step of training on domain i.

    The domains are shuffled, and the last `n_meta_test` of them are for testing; each of the others is paired with one
    of these in turn. θ' is one step of a new optimizer from θ along g_i. There are no second derivatives. Of two
    domains of different sizes, the first rows of the larger one are used. With β = 0 the direction is Σ g_i / K over
    the domains for training.

    Source: Li et al., AAAI 2018, Algorithm 1; DomainBed `algorithms.py`, class MLDG.

    Args:
        problem: see `Problem`.
        mldg_beta: weight β of the test.
        n_meta_test: number of domains for testing, at least one fewer than the source domains.

    Differences from the paper: first-order, one inner step of the base optimiser instead of SGD, and a pair at a time,
    as in DomainBed. Differences from public codes: BatchNorm layers that are not frozen keep statistics of the passes
    at θ (DomainBed trains copies of the network, and the network itself keeps those it started with).
    """

    paper = "Li et al., AAAI 2018"
    passes_per_step = 2  # at most: 2 (K - n_meta_test) of the K domains
    min_domains = 2

    def __init__(
        self,
        problem: Problem,
        *,
        mldg_beta: Annotated[float, Field(ge=0), Power(10, -1, 1)] = 1.0,
        n_meta_test: Annotated[int, Field(ge=1), Choice(1, 2)] = 2,
    ) -> None:
        super().__init__(problem)
        if not n_meta_test < problem.num_domains:
            raise UserError(
                f"MLDG trains on some source domains and tests on others: n_meta_test should be less than their "
                f"number, {problem.num_domains}. Found {n_meta_test}."
            )
        self.mldg_beta, self.n_meta_test = mldg_beta, n_meta_test

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        domains, K = list(batch.domains()), len(batch.sizes)
        order = self.draws.permutation("perm", K)
        train, test = order[: K - self.n_meta_test], order[K - self.n_meta_test :]
        total: Vector = tuple(torch.zeros_like(p) for p in self.params)
        loss = torch.zeros((), dtype=batch.x.dtype, device=batch.x.device)
        for i, j in zip(train, cycle(test), strict=False):
            n = min(batch.sizes[i], batch.sizes[j])
            (x, y), (x_test, y_test) = domains[i], domains[j]
            loss_i, g_i = self.gradient_of(self.loss(x[:n], y[:n]))
            loss_j, g_j = self.after_a_step(g_i, x_test[:n], y_test[:n])
            add_(add_(total, g_i), g_j, self.mldg_beta)
            loss = loss + loss_i + self.mldg_beta * loss_j
        self.descend(scale_(1 / K, total))
        return {"loss": loss / K}

    def after_a_step(self, g: Vector, x: Tensor, y: Tensor) -> tuple[Tensor, Vector]:
        """Loss of the rows and its gradient at θ', a step of a new optimizer along g away; θ is as before."""
        with self.perturbed(tuple(torch.zeros_like(p) for p in self.params)):
            optimizer = self.problem.make_optimizer(self.params)
            for p, direction in zip(self.params, g, strict=True):
                p.grad = direction
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return self.gradient_of(self.loss(x, y))
