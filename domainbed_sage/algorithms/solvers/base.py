"""What makes one direction of the gradients of K losses, and what it is given."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from domainbed_sage.algorithms.draws import Draws
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.core.registry import Registry
from domainbed_sage.geometry.vectors import Vector, add_, clip_, gram, scale_


@dataclass(frozen=True)
class Tasks:
    """What every solver is given.

    Attributes:
        count: number K of losses.
        shared: the parameters whose gradients are combined; they say on which device and in which precision.

    Raises:
        UserError: there is no loss, or no parameter.
    """

    count: int
    shared: Vector

    def __post_init__(self) -> None:
        for what, found in (("task", self.count), ("shared parameter", len(self.shared))):
            if found < 1:
                raise UserError(f"A solver needs at least one {what}. Found {found}.")

    def zeros(self, *sizes: int) -> Tensor:
        """A tensor of zeros beside the shared parameters."""
        return torch.zeros(sizes, dtype=self.shared[0].dtype, device=self.shared[0].device)


class Combined(NamedTuple):
    """Direction of K gradients, and the weights w [K] with which it is Σ_k w_k g_k; None where it is no such sum."""

    direction: Vector
    weights: Tensor | None


class Solver(ABC):
    """One published rule that combines K losses and their gradients; it does not know what the losses are of.

    Its hyperparameters are the keyword-only arguments of its constructor, in the words and with the defaults of its
    authors. Nothing here reads a tensor's value: the results stay on the device. A loss or gradient that is not finite
    makes all weights, or the direction, not finite either, so that the run stops; it is never left out.

    Attributes:
        tasks: see `Tasks`.
        draws: the source of all random numbers.
        kept: its state, by name: anything with a `state_dict`.
        scheduled: optimizers of its own whose learning rate follows the run's.
        paper: authors, venue and year of its publication.
        heads: what the parameters of one task get: the gradient of w_k L_k, or the plain one of L_k.
        factor_k: whether its authors multiply the direction by K; where the heads are weighted, the weights as well.
        max_norm: what the direction is clipped to, in the Euclidean norm, after the factor K.
        watches_losses_after: whether `stepped` is to be called after every update.
    """

    name: ClassVar[str] = "solver"
    paper: ClassVar[str] = ""
    heads: ClassVar[Literal["weighted", "plain"]] = "weighted"
    factor_k: bool = False
    watches_losses_after: ClassVar[bool] = False

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.draws = Draws()
        self.kept: dict[str, Any] = {}
        self.scheduled: list[torch.optim.Optimizer] = []
        self.max_norm = math.inf

    @abstractmethod
    def combine(self, losses: Tensor, gradients: Sequence[Vector]) -> Combined:
        """The direction of K losses [K] and their gradients, without `factor_k` and `max_norm`.

        It is made in the gradients' memory, whose values are lost; both are detached.

        Raises:
            UserError: there are more or fewer losses or gradients than tasks.
        """

    def finished_(self, direction: Vector) -> Vector:
        """The direction times K where the authors do this, then clipped, in place."""
        if self.factor_k:
            scale_(float(self.tasks.count), direction)
        if math.isfinite(self.max_norm):
            clip_(direction, self.max_norm)
        return direction

    def stepped(self, losses: Tensor) -> None:  # noqa: B027 - a hook
        """Take note of the losses [K] of the same minibatch after the update, if `watches_losses_after`."""

    def epoch_ended(self) -> None:  # noqa: B027 - a hook
        """Take note of the end of a pass over the data."""

    def state_dict(self) -> dict[str, Any]:
        """Everything a restart needs."""
        return {name: part.state_dict() for name, part in self.kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state that `state_dict` returned."""
        for name, part in self.kept.items():
            part.load_state_dict(state[name])

    def check_count(self, *things: Tensor | Sequence[Vector]) -> None:
        """Make sure that there is one of each for every task.

        Raises:
            UserError: there is not.
        """
        for thing in things:
            if len(thing) != self.tasks.count:
                raise UserError(f"{self.name} was made for {self.tasks.count} tasks. Found {len(thing)} of them.")


class LossSolver(Solver):
    """A solver that sees the values of the losses alone: one backward pass of Σ_k w_k L_k is enough."""

    @abstractmethod
    def weights(self, losses: Tensor) -> Tensor:
        """Weights w [K] of detached losses [K]; a solver with a state takes one step of it."""

    def combine(self, losses: Tensor, gradients: Sequence[Vector]) -> Combined:
        """See `Solver.combine`."""
        self.check_count(losses, gradients)
        w = self.weights(losses)
        return Combined(weighted_sum_(gradients, w), w)


class GramSolver(Solver):
    """A solver that needs the inner products of the gradients, and no more."""

    @abstractmethod
    def solve(self, G: Tensor) -> Tensor:
        """Weights w [K] of the finite inner products ⟨g_i, g_j⟩ [K, K], both in float64."""

    def weights(self, G: Tensor) -> Tensor:
        """Weights w [K] of the inner products ⟨g_i, g_j⟩ [K, K], in their precision; NaN if one is not finite.

        Equal gradients share their weight equally.
        """
        w = self.solve(torch.where(G.isfinite(), G, 0).double())
        equal = (G[:, None] == G).all(-1).to(w)
        w = equal @ w / equal.sum(1)
        return torch.where(G.isfinite().all(), w, math.nan).to(G.dtype)

    def combine(self, losses: Tensor, gradients: Sequence[Vector]) -> Combined:
        """See `Solver.combine`."""
        self.check_count(losses, gradients)
        w = self.weights(gram(gradients))
        return Combined(weighted_sum_(gradients, w), w)


def weighted_sum_(vectors: Sequence[Vector], w: Tensor) -> Vector:
    """Σ_k w_k a_k of K vectors with weights [K], in place of the first; the others lose their values too."""
    total = vectors[0]
    for w_k, a in zip(w.to(total[0].dtype), vectors, strict=True):
        scaled = scale_(w_k, a)
        total = total if scaled is total else add_(total, scaled)
    return total


solvers: Registry[type[Solver]] = Registry("solver")


def register(name: str) -> Callable[[type[Solver]], type[Solver]]:
    """Class decorator that enters a solver under `name`, as Table 2 of SAGE writes it.

    Raises:
        UserError: the name is taken, or the thing is no solver.
    """
    return solvers.register_class(name, Solver, "all its methods")


def make_solver(name: str, tasks: Tasks, hparams: Mapping[str, Any] | None = None) -> Solver:
    """The solver of this name, with its defaults where `hparams` gives nothing.

    Raises:
        UserError: there is no such solver, or it has other hyperparameters.
    """
    cls = solvers[name]
    try:
        return cls(tasks, **validate(declared(cls), hparams or {}))
    except UserError as error:
        raise UserError(f"Solver {name}: {error}", error.mistakes) from None
