"""Inter-domain gradient matching."""

from typing import Annotated

import torch
from pydantic import Field

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Choice
from domainbed_sage.data.batch import DomainBatch


@register("Fish")
class Fish(Algorithm):
    """One step of the base optimiser on each domain after the other, θ → θ̃; then θ ← θ + ε (θ̃ - θ).

    To second order in the learning rate this adds the inner products of the domain gradients to ERM's objective. The
    optimiser's state is carried on from one inner step, and from one update, to the next. With one domain and ε = 1 it
    is ERM; with ε = 0 the weights stay.

    Source: Shi et al., ICLR 2022, Algorithm 1; DomainBed `algorithms.py`, class Fish; YugeTen/fish `main.py`.

    Args:
        problem: see `Problem`.
        meta_lr: ε, the share of the way to θ̃.
        meta_steps: 0: all domains in their fixed order, as in DomainBed. Otherwise, as in the authors' code, so many
            domains in random order, and `meta_lr` is divided by their number.

    Differences from the paper: the authors train by ERM for some thousand steps first; here, as in DomainBed, Fish
    begins at once. Floating-point buffers (BatchNorm) are interpolated too, as DomainBed does. Of n < K drawn domains
    the other rows of the minibatch are not used. `loss` is the last domain's, as both codes report it.
    """

    paper = "Shi et al., ICLR 2022"

    def __init__(
        self,
        problem: Problem,
        *,
        meta_lr: Annotated[float, Field(ge=0), Choice(0.05, 0.1, 0.5)] = 0.5,
        meta_steps: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__(problem)
        if meta_steps > problem.num_domains:
            raise UserError(
                f"Fish cannot draw meta_steps = {meta_steps} of {problem.num_domains} source domains. Choose at most "
                f"{problem.num_domains}, or 0 for all of them in order."
            )
        self.meta_steps = meta_steps
        self.share = meta_lr / (meta_steps or 1)

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        moved = [p.data for p in self.params] + [b for b in self.model.buffers() if b.is_floating_point()]
        start = [t.clone() for t in moved]
        domains = list(batch.domains())
        order = self.draws.permutation("domains", len(domains))[: self.meta_steps] if self.meta_steps else None
        for x, y in (domains[i] for i in order) if order is not None else domains:
            loss, g = self.gradient_of(self.loss(x, y))
            self.descend(g)
        with torch.no_grad():
            torch._foreach_lerp_(moved, start, 1 - self.share)
        return {"loss": loss}
