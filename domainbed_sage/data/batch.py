"""The minibatch of one step: K source domains side by side, or rows with the targets of K tasks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from domainbed_sage.models.multitask import of_domains_alone


@dataclass(frozen=True)
class DomainBatch:
    """Rows of K domains in one tensor; the rows of a domain are contiguous, in domain order.

    Attributes:
        x: inputs [N, ...].
        y: class indices [N].
        sizes: rows of each domain (n_1, …, n_K), summing to N; they may differ.
    """

    x: Tensor
    y: Tensor
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if min(self.sizes, default=0) < 1 or sum(self.sizes) != len(self.x) or len(self.x) != len(self.y):
            raise ValueError(
                f"`sizes` should be positive and sum to the number of rows. "
                f"Found sizes {self.sizes}, {len(self.x)} inputs and {len(self.y)} labels."
            )

    @property
    def weights(self) -> Tensor:
        """Sample weights w_k = n_k / N of the domains [K]."""
        sizes = torch.tensor(self.sizes, dtype=self.x.dtype) / len(self.x)
        return sizes.to(self.x.device, non_blocking=True)  # building it there would wait for the device

    def domains(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x_k, y_k), the rows of each domain."""
        yield from zip(self.x.split(self.sizes), self.y.split(self.sizes), strict=True)

    def to(self, device: torch.device | str) -> "DomainBatch":
        """Return the batch on a device."""
        return DomainBatch(self.x.to(device, non_blocking=True), self.y.to(device, non_blocking=True), self.sizes)

    def map(self, function: Callable[[Tensor], Tensor]) -> "DomainBatch":
        """Return the batch with `function` applied to all inputs at once."""
        return DomainBatch(function(self.x), self.y, self.sizes)

    def pin_memory(self) -> "DomainBatch":
        """Return the batch in page-locked memory; called by torch's DataLoader."""
        return DomainBatch(self.x.pin_memory(), self.y.pin_memory(), self.sizes)


@dataclass(frozen=True)
class TaskBatch:
    """Rows with the targets of K tasks.

    Attributes:
        x: inputs [N, ...].
        targets: those of each task [N, ...].
    """

    x: Tensor
    targets: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if not len(self.x) or not self.targets or any(len(y) != len(self.x) for y in self.targets):
            raise ValueError(
                f"Every task should have a target for each of at least one input. "
                f"Found {len(self.x)} inputs and {[len(y) for y in self.targets]} targets."
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each task: all of them."""
        return (len(self.x),) * len(self.targets)

    @property
    def y(self) -> NoReturn:
        """The class indices that a batch of domains has.

        Raises:
            UserError: always.
        """
        raise of_domains_alone("single class of an image")

    def domains(self) -> NoReturn:
        """See `y`."""
        raise of_domains_alone("rows of their own")

    @property
    def weights(self) -> Tensor:
        """Weights 1 / K of the tasks [K]."""
        return self.x.new_full((len(self.targets),), 1 / len(self.targets))

    def map(self, function: Callable[[Tensor], Tensor]) -> "TaskBatch":
        """Return the batch with `function` applied to all inputs at once."""
        return TaskBatch(function(self.x), self.targets)

    def to(self, device: torch.device | str) -> "TaskBatch":
        """Return the batch on a device."""
        targets = tuple(y.to(device, non_blocking=True) for y in self.targets)
        return TaskBatch(self.x.to(device, non_blocking=True), targets)

    def pin_memory(self) -> "TaskBatch":
        """Return the batch in page-locked memory; called by torch's DataLoader."""
        return TaskBatch(self.x.pin_memory(), tuple(y.pin_memory() for y in self.targets))
