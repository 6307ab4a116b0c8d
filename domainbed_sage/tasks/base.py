"""The interface of a task, and of what measures a network on it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from domainbed_sage.core.errors import UserError


class Meter(ABC):
    """Metrics of one task over the batches of a data set, in memory that does not grow with their number.

    Nothing in `update` waits for the device.

    Attributes:
        higher_is_better: the metrics that `compute` returns, and the direction of each.
    """

    higher_is_better: ClassVar[Mapping[str, bool]]

    @abstractmethod
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Take note of a batch.

        Raises:
            UserError: their shapes do not belong together.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The metrics of all batches so far.

        Raises:
            UserError: there was nothing to measure on.
        """


class Task(ABC):
    """What one output of a multi-task network is to predict. Tasks are values: equal ones are the same task.

    Attributes:
        name: the task in records and tables.
        activation: what the network applies to this output, a key of `domainbed_sage.models.multitask.ACTIVATIONS`.
        meter: makes a new meter of its metrics.
    """

    name: str
    activation: ClassVar[str] = "none"

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of output channels."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean loss [] of a batch; nothing in it waits for the device.

        Raises:
            UserError: the shapes of the two do not belong together.
        """

    @abstractmethod
    def meter(self) -> Meter:
        """A new meter of the task's metrics."""

    @abstractmethod
    def tally(self, target: Tensor) -> Tensor:
        """What `trivial` has to know of a batch's targets, to be summed over batches; float64."""

    @abstractmethod
    def trivial(self, tally: Tensor) -> Tensor:
        """The prediction [channels, …] for any image, made without it from the sum over all training samples."""


def check_shape(name: str, target: Tensor, *sizes: int) -> None:
    """Make sure that a target has the sizes that its prediction asks for: another would be broadcast.

    Raises:
        UserError: it does not.
    """
    if tuple(target.shape) != sizes:
        raise UserError(
            f"The target of {name} should have the shape {list(sizes)}, as its prediction has it. "
            f"Found {list(target.shape)}."
        )


def nothing_measured(name: str) -> UserError:
    """The error of a meter that saw nothing valid."""
    return UserError(f"No batch had anything to measure {name} on. Give at least one with a valid target.")
