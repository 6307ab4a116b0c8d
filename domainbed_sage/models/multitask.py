"""The interface of a network with one output for each of K tasks, and which of its parameters the tasks share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import NoReturn, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn import functional as F

from domainbed_sage.core.errors import UserError, known
from domainbed_sage.models.base import Network

Mask: TypeAlias = tuple[bool, ...]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {  # of [N, C, …], over the channels
    "none": lambda x: x,
    "log_softmax": partial(F.log_softmax, dim=1),
    "unit": partial(F.normalize, dim=1),  # vectors of length 1; a zero vector stays one
}


class Output(Protocol):
    """What a network has to know of a task: `domainbed_sage.tasks.Task` is one."""

    @property
    def name(self) -> str:
        """The task."""

    @property
    def channels(self) -> int:
        """Number of output channels."""

    @property
    def activation(self) -> str:
        """What is applied to the output, a key of `ACTIVATIONS`."""


class MultiTaskModel(Network, ABC):
    """Predictions of K tasks = activations of what `raw` returns.

    Masks have one entry for each parameter that requires a gradient, in the order of `parameters()`. They follow from
    the graph that autograd records of a pass over one small image, made when a mask is first asked for: what is frozen
    has to be frozen before. No name and no value matters, and no mode, statistic or random number changes.

    Args:
        outputs: the K tasks.
        probe: channels, height and width of a small image that the network can take.

    Attributes:
        task_names: names of the K tasks.
        activations: of each output, keys of `ACTIVATIONS`.
        probe: as given.

    Raises:
        UserError: there is no task, or one has an activation that is not known.
    """

    def __init__(self, outputs: Sequence[Output], probe: tuple[int, int, int]) -> None:
        super().__init__()
        if not outputs:
            raise UserError("A multi-task network should have at least one task. Found none.")
        for output in outputs:
            if output.activation not in ACTIVATIONS:
                raise UserError(
                    f"Task {output.name!r} asks for the activation {output.activation!r}. {known(list(ACTIVATIONS))}."
                )
        self.task_names = tuple(output.name for output in outputs)
        self.activations = tuple(output.activation for output in outputs)
        self.probe = probe

    @abstractmethod
    def raw(self, x: Tensor) -> Sequence[Tensor]:
        """The K outputs for images [N, C, H, W] before their activations, [N, channels, …] each."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The K predictions for images [N, C, H, W]."""
        return tuple(ACTIVATIONS[name](y) for name, y in zip(self.activations, self.raw(x), strict=True))

    @cached_property
    def reached(self) -> tuple[Mask, ...]:
        """For each task, the parameters that its prediction depends on."""
        params = [p for p in self.parameters() if p.requires_grad]
        modes = [(module, module.training) for module in self.modules()]
        try:
            with torch.enable_grad():
                leaves = [get_gradient_edge(p).node for p in params]
                predictions = self.eval()(params[0].new_zeros(1, *self.probe))
        finally:
            for module, mode in modes:
                module.training = mode
        behind = [_behind(y.grad_fn) for y in predictions]
        return tuple(tuple(leaf in nodes for leaf in leaves) for nodes in behind)

    @property
    def shared(self) -> Mask:
        """The parameters that every task depends on; with one task, all that it depends on.

        Raises:
            UserError: there is none, so that no two gradients can be combined.
        """
        mask = tuple(map(all, zip(*self.reached, strict=True)))
        if not any(mask):
            raise UserError(
                f"No parameter is shared by all {len(self.task_names)} tasks ({', '.join(self.task_names)}). "
                "Multi-task methods combine the gradients of shared parameters: give the tasks a common trunk, and "
                "leave it trainable."
            )
        return mask

    @property
    def featurizer(self) -> NoReturn:
        """What networks of domain generalization have.

        Raises:
            UserError: always.
        """
        raise of_domains_alone("features of a whole image")

    @property
    def classifier(self) -> NoReturn:
        """See `featurizer`."""
        raise of_domains_alone("classifier")

    @property
    def class_features(self) -> NoReturn:
        """See `featurizer`."""
        raise of_domains_alone("text features of classes")

    def private(self, k: int) -> Mask:
        """The parameters that task k alone depends on; what several but not all depend on is in no such mask."""
        if len(self.task_names) == 1:
            return (False,) * len(self.reached[0])
        return tuple(row[k] and sum(row) == 1 for row in zip(*self.reached, strict=True))

    @property
    def code_shared(self) -> Mask:
        """What the codes behind SAGE's Table 2 take for shared: every parameter whose name lacks "pred".

        In MTAN these are also the attention modules, each of which only one task depends on.
        """
        return tuple("pred" not in name for name, p in self.named_parameters() if p.requires_grad)

    def heads(self, shared: Mask) -> tuple[tuple[str, ...], ...]:
        """For each task, names of the parameters that it depends on outside `shared`, which is either reading of it."""
        names = [name for name, p in self.named_parameters() if p.requires_grad]
        return tuple(
            tuple(name for name, has, common in zip(names, row, shared, strict=True) if has and not common)
            for row in self.reached
        )


def of_domains_alone(what: str) -> UserError:
    """The error for an algorithm that asks for what several tasks do not have."""
    return UserError(
        f"Several tasks have no {what}, which this algorithm asks for: it is one of domain generalization alone. "
        "Choose one that needs nothing but losses and their gradients, as those of `sweeps/rooms.yaml`."
    )


def check_sides(network: str, x: Tensor, stride: int) -> None:
    """Make sure that height and width of images can be halved as often as a network does.

    Raises:
        UserError: they are no multiples of `stride`.
    """
    height, width = x.shape[-2:]
    if height % stride or width % stride:
        raise UserError(
            f"{network} takes images whose height and width are multiples of {stride}. Found {height} x {width}."
        )


def _behind(end: Node | None) -> set[Node]:
    """All nodes of the graph that a backward pass from here would visit."""
    found, left = set[Node](), [end]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found.add(node)
            left += [before for before, _ in node.next_functions]
    return found
