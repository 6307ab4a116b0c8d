"""The K losses that an algorithm sees, and their gradients; an algorithm does not know what they are losses of."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed_sage.geometry.vectors import Vector, gram, in_own_memory, weighted_mean_

if TYPE_CHECKING:
    from domainbed_sage.algorithms.base import Algorithm

log = logging.getLogger(__name__)


class Objectives(ABC):
    """L_1, …, L_K of a minibatch, the gradients of each, and the aggregate of them that an algorithm descends on.

    Args:
        algorithm: the algorithm that asks; its parameters, precision and passes are used.

    Attributes:
        heads: for each loss k, which parameters [P] belong to it alone; none, where all are shared.
    """

    def __init__(self, algorithm: "Algorithm") -> None:
        self.algorithm = algorithm
        self.heads: Sequence[Sequence[bool]] = [[False] * len(algorithm.params)] * algorithm.problem.num_domains

    @cached_property
    def shared(self) -> Sequence[bool]:
        """Which parameters [P] belong to no head."""
        return [not any(of_head) for of_head in zip(*self.heads, strict=True)]

    @abstractmethod
    def single_losses(self, batch: Any) -> list[Tensor]:
        """L_1, …, L_K from one forward pass over the whole batch."""

    @abstractmethod
    def aggregate(self, batch: Any, losses: Tensor, gradients: Sequence[Vector]) -> Vector:
        """The direction that is descended on, of K losses [K] and gradients; made in the gradients' memory."""

    @abstractmethod
    def gradient(self, batch: Any) -> tuple[Tensor, Vector]:
        """Mean loss [] and aggregated gradient of the batch; at the price of one pass where that is possible."""

    @abstractmethod
    def combine(self, batch: Any, losses: Tensor, gradients: Sequence[Vector]) -> Vector:
        """As `aggregate`, before whatever its authors do to the length of the direction; heads get Σ_k ∂L_k."""

    @abstractmethod
    def mean_gradient(self, batch: Any) -> tuple[Tensor, Vector]:
        """Σ_k w_k L_k with the batch's weights, and its gradient, from one pass."""

    def loss_of(self, batch: Any, k: int) -> Tensor:
        """Loss L_k []."""
        return self.single_losses(batch)[k]

    def losses(self, batch: Any) -> Tensor:
        """L_1, …, L_K from one forward pass over the whole batch [K]."""
        return torch.stack(self.single_losses(batch))

    def gradients(self, batch: Any) -> tuple[Tensor, list[Vector]]:
        """Losses [K] and their gradients, from one forward pass and K backward passes."""
        losses, params = self.single_losses(batch), self.algorithm.params
        grads = [
            torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True, materialize_grads=True)
            for loss in losses
        ]
        return torch.stack(losses).detach(), [in_own_memory(g, params) for g in grads]

    def moments(self, batch: Any) -> tuple[Tensor, Tensor, Vector]:
        """Losses [K], the inner products ⟨g_i, g_j⟩ [K, K], and Σ_k w_k g_k with the batch's weights.

        The sum takes the memory of the first gradient, and the others are freed.
        """
        losses, grads = self.gradients(batch)
        return losses, gram(grads), weighted_mean_(grads, batch.sizes)

    @abstractmethod
    def predict(self, x: Tensor) -> Any:
        """What the network makes of rows, for evaluation, in the precision of the problem."""

    def begins(self, step: int) -> None:  # noqa: B027 - a hook
        """Take note that a step begins; the training loop calls it before `update`."""

    def stepped(self) -> None:  # noqa: B027 - a hook
        """Take note that the weights were updated."""

    def state_dict(self) -> dict[str, Any]:
        """What a restart needs; empty, as here, where there is nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - a hook
        """Take over the state that `state_dict` returned."""


class Domains(Objectives):
    """Domain generalization: L_k is the loss of the rows of domain k, and the aggregate is the mean over all rows."""

    def single_losses(self, batch: Any) -> list[Tensor]:
        """See `Objectives.single_losses`."""
        logits = self.algorithm.forward(batch.x).split(batch.sizes)
        return [F.cross_entropy(z, y) for z, (_, y) in zip(logits, batch.domains(), strict=True)]

    def aggregate(self, batch: Any, losses: Tensor, gradients: Sequence[Vector]) -> Vector:
        """See `Objectives.aggregate`: Σ_k w_k g_k."""
        del losses
        return weighted_mean_(gradients, batch.sizes)

    combine = aggregate

    def predict(self, x: Tensor) -> Tensor:
        """See `Objectives.predict`: logits [N, C]."""
        return self.algorithm.forward(x)

    def gradient(self, batch: Any) -> tuple[Tensor, Vector]:
        """See `Objectives.gradient`: of Σ_k w_k L_k, the loss of all rows."""
        return self.algorithm.gradient_of(self.algorithm.loss(batch.x, batch.y))

    mean_gradient = gradient

    def loss_of(self, batch: Any, k: int) -> Tensor:
        """See `Objectives.loss_of`; where no layer mixes samples, the rows of domain k pass alone."""
        if self.algorithm.model.mixes_samples:
            return super().loss_of(batch, k)
        return self.algorithm.loss(*list(batch.domains())[k])

    def gradients(self, batch: Any) -> tuple[Tensor, list[Vector]]:
        """See `Objectives.gradients`.

        Where no layer mixes samples, each domain passes alone: the same gradients as from one joint graph at the
        price of one backward pass over the batch instead of K.
        """
        algorithm = self.algorithm
        if algorithm.model.mixes_samples:
            _note_joint_graph()
            return super().gradients(batch)
        pairs = [algorithm.gradient_of(algorithm.loss(x, y)) for x, y in batch.domains()]
        return torch.stack([loss for loss, _ in pairs]), [g for _, g in pairs]


@cache
def _note_joint_graph() -> None:
    """Say it once in a process."""
    log.info(
        "Layers of this network mix samples (BatchNorm with batch statistics), so domain gradients take one joint "
        "forward pass and K backward passes instead of the price of one. freeze_bn avoids it."
    )
