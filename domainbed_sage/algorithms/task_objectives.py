"""The losses of several tasks on the same rows, and what a solver makes of their gradients."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.objectives import Objectives
from domainbed_sage.algorithms.solvers import Combined, LossSolver, Solver, Tasks, make_solver
from domainbed_sage.algorithms.solvers.base import solver_hparams, weighted_sum_
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.batch import TaskBatch
from domainbed_sage.geometry.vectors import Vector, add_, gram, part, scale_, weighted_mean_

Over: TypeAlias = Literal["all", "shared"]
SolverName: TypeAlias = Annotated[str, Field(description="the name of a solver")]
SolverHParams: TypeAlias = Annotated[dict[str, Any], Field(description="an object of that solver's hyperparameters")]


class Loss(Protocol):
    """What is needed of a task."""

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss [] of a minibatch."""


class TaskObjectives(Objectives):
    """Multi-task learning: L_k is the loss of output k of the network, and the aggregate is made by a solver.

    The solver combines the gradients of the shared parameters. The parameters of a head get Σ_k w_k ∂L_k with the
    solver's weights w, or Σ_k ∂L_k, as its authors do it. Weights that every task reaches alone, such as attention
    modules of one task, may be counted to either, see `MultiTaskModel`.

    Args:
        algorithm: the algorithm that asks; its network gives one output a task.
        tasks: the losses of the outputs, in their order.
        heads: for each task, names of the parameters of its head; all others are shared.
        steps_per_epoch: after how many steps an epoch ends, for the schedule, and for solvers that look at epochs.
        solver: name of the solver.
        solver_hparams: hyperparameters of the solver.
        agreement_over: parameters whose gradients the inner products of `moments` are of.
        perturb: parameters whose gradient `moments` returns; it is 0 for the others, which then are not perturbed.
        lr_decay: what the learning rates are multiplied by after every `lr_decay_epochs` epochs.
        lr_decay_epochs: see `lr_decay`.

    Raises:
        UserError: no parameter is shared, a name is not one of the network's trainable parameters, or the solver has
            other hyperparameters.
    """

    def __init__(
        self,
        algorithm: Any,
        tasks: Sequence[Loss],
        heads: Sequence[Collection[str]],
        steps_per_epoch: int = 0,
        *,
        solver: SolverName = "LS",
        solver_hparams: SolverHParams = {},  # noqa: B006 - never changed
        agreement_over: Over = "all",
        perturb: Over = "all",
        lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.5,
        lr_decay_epochs: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        super().__init__(algorithm)
        self.tasks, self.agreement_over, self.perturb = tasks, agreement_over, perturb
        names = [name for name, p in algorithm.model.named_parameters() if p.requires_grad]
        if unknown := set(itertools.chain(*heads)).difference(names):
            raise UserError(f"The network has no trainable parameter {', '.join(sorted(unknown))}, named as a head's.")
        self.heads = [[name in head for name in names] for head in heads]
        self.solver: Solver = make_solver(
            solver, Tasks(len(tasks), part(algorithm.params, self.shared)), solver_hparams
        )
        self.batch: TaskBatch | None = None
        self.steps_per_epoch, self.lr_decay, self.lr_decay_epochs = steps_per_epoch, lr_decay, lr_decay_epochs

    @classmethod
    def completed(cls, hparams: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters with all of the solver's, for records.

        Raises:
            UserError: there is no such solver, or it has other hyperparameters.
        """
        return {**hparams, "solver_hparams": solver_hparams(hparams["solver"], hparams["solver_hparams"])}

    def begins(self, step: int) -> None:
        """See `Objectives.begins`: the learning rates of its epoch, and the end of the epoch before."""
        if not self.steps_per_epoch:
            return
        epoch, within = divmod(step, self.steps_per_epoch)
        if not within and epoch:
            self.solver.epoch_ended()
        for optimizer in (self.algorithm.optimizer, *self.solver.scheduled):
            for group in optimizer.param_groups:  # PyTorch's schedulers keep the first rate there as well
                first = group.setdefault("initial_lr", group["lr"])
                group["lr"] = first * self.lr_decay ** (epoch // self.lr_decay_epochs)

    def predict(self, x: Tensor) -> tuple[Tensor, ...]:
        """See `Objectives.predict`: one prediction a task."""
        with self.algorithm.arithmetic(x.device):
            return tuple(p.to(x.dtype) for p in self.algorithm.model(x))

    def single_losses(self, batch: TaskBatch) -> list[Tensor]:
        """See `Objectives.single_losses`."""
        found = zip(self.tasks, self.predict(batch.x), batch.targets, strict=True)
        return [task.loss(p, y) for task, p, y in found]

    def combine(self, batch: TaskBatch, losses: Tensor, gradients: Sequence[Vector]) -> Vector:
        """See `Objectives.combine`; a factor K in the solver's weights stays."""
        self.batch = batch
        shared, w = self._combined(losses, gradients)
        if self.solver.factor_k and self._weighted(w) is not None:
            scale_(float(len(self.tasks)), shared)
        return self._merged(shared, self._of_heads(gradients, None))

    def aggregate(self, batch: TaskBatch, losses: Tensor, gradients: Sequence[Vector]) -> Vector:
        """See `Objectives.aggregate`."""
        self.batch = batch
        shared, w = self._combined(losses, gradients)
        return self._merged(self.solver.finished_(shared), self._of_heads(gradients, self._weighted(w)))

    def gradient(self, batch: TaskBatch) -> tuple[Tensor, Vector]:
        """See `Objectives.gradient`: the mean loss, whatever the solver makes of the losses.

        For solvers that see the losses alone, one backward pass of Σ_k w_k L_k.
        """
        self.batch = batch
        if not isinstance(self.solver, LossSolver):
            losses, gradients = self.gradients(batch)
            return losses.mean(), self.aggregate(batch, losses, gradients)
        self.solver.draws = self.algorithm.draws
        losses = self.losses(batch)
        _, g = self.algorithm.gradient_of(self.solver.weights(losses.detach()) @ losses)
        return losses.detach().mean(), g

    def mean_gradient(self, batch: TaskBatch) -> tuple[Tensor, Vector]:
        """See `Objectives.mean_gradient`; the solver does not take part."""
        return self.algorithm.gradient_of(self.losses(batch).mean())

    def moments(self, batch: TaskBatch) -> tuple[Tensor, Tensor, Vector]:
        """See `Objectives.moments`."""
        losses, gradients = self.gradients(batch)
        seen = gradients if self.agreement_over == "all" else [part(g, self.shared) for g in gradients]
        inner_products, mean = gram(seen), weighted_mean_(gradients, batch.sizes)
        if self.perturb == "shared":
            torch._foreach_zero_(part(mean, self._in_heads))
        return losses, inner_products, mean

    @torch.no_grad()
    def stepped(self) -> None:
        """See `Objectives.stepped`: solvers that ask for them see the losses of the same minibatch again."""
        if self.solver.watches_losses_after and self.batch is not None:
            with self.algorithm.model.frozen_statistics():
                self.solver.stepped(self.losses(self.batch))

    def state_dict(self) -> dict[str, Any]:
        """See `Objectives.state_dict`."""
        return self.solver.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Objectives.load_state_dict`."""
        self.solver.load_state_dict(state)

    @cached_property
    def _in_heads(self) -> Sequence[bool]:
        return [not shared for shared in self.shared]

    def _combined(self, losses: Tensor, gradients: Sequence[Vector]) -> Combined:
        self.solver.draws = self.algorithm.draws
        return self.solver.combine(losses, [part(g, self.shared) for g in gradients])

    def _weighted(self, w: Tensor | None) -> Tensor | None:
        """The weights [K] of the heads' gradients; None where these are plain."""
        if w is None or self.solver.heads == "plain":
            return None
        return w * len(self.tasks) if self.solver.factor_k else w

    def _of_heads(self, gradients: Sequence[Vector], weights: Tensor | None) -> Vector:
        """Σ_k w_k g_k of the heads' parameters, Σ_k g_k without weights; in place of the first."""
        total, *others = (part(g, self._in_heads) for g in gradients)
        if not total:
            return ()
        if weights is not None:
            return weighted_sum_([total, *others], weights)
        for g in others:
            add_(total, g)
        return total

    def _merged(self, shared: Vector, heads: Vector) -> Vector:
        """One vector in the order of the parameters."""
        shared_tensors, head_tensors = iter(shared), iter(heads)
        return tuple(next(shared_tensors if is_shared else head_tensors) for is_shared in self.shared)
