"""What determines the cost of one update, and the algorithm and minibatch that an update is counted with."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from domainbed_sage.algorithms import Algorithm, Problem
from domainbed_sage.algorithms.erm import ERM
from domainbed_sage.algorithms.problems import TASKS, kind_of
from domainbed_sage.algorithms.solvers import solvers
from domainbed_sage.algorithms.solvers.base import solver_hparams
from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.config import RunConfig
from domainbed_sage.core.hparams import declared
from domainbed_sage.data.batch import DomainBatch, TaskBatch
from domainbed_sage.data.multitask.base import Kind, task_datasets
from domainbed_sage.data.specs import datasets
from domainbed_sage.geometry.products import Precision
from domainbed_sage.models import Model, build_model, models
from domainbed_sage.models.multitask import MultiTaskModel
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.models.task_models import task_models
from domainbed_sage.training.task_experiment import tasks_of

FEW = 2  # repetitions: the second starts from the state that the first leaves
LIGHT_HEAD = 0.0025  # of the featurizer's weights


class Alike(dict[str, Any]):
    """Hyperparameters that equal others of the same cost: of a float, only whether it is zero matters."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and self._key() == other._key()

    def _key(self) -> frozenset[tuple[str, Any]]:
        return frozenset((name, _key(value)) for name, value in self.items())

    def of(self, *configurables: Any) -> dict[str, Any]:
        """Those that these components declare."""
        return {name: self[name] for name in declared(*configurables)}


def _key(value: Any) -> Any:
    if isinstance(value, float):
        return bool(value)
    return frozenset((k, _key(v)) for k, v in value.items()) if isinstance(value, dict) else value


@dataclass(frozen=True)
class Case:
    """What determines the cost of one update besides the batch size.

    Attributes:
        algorithm: the method.
        model, optimizer: their names.
        hparams: those of all parts.
        step: number of the step, of its kind.
        precision: arithmetic.
    """

    algorithm: type[Algorithm]
    model: str
    optimizer: str
    hparams: Alike
    step: int
    precision: Precision = "fp32"

    @property
    @abstractmethod
    def plain(self) -> "Case":
        """One forward and backward pass of the same network and data."""

    @abstractmethod
    def network(self) -> Any:
        """The network on the meta device, which is not to be changed."""

    @abstractmethod
    def batch(self, batch_size: int) -> Any:
        """A minibatch whose values do not matter."""

    @abstractmethod
    def problem(self, network: Any) -> Problem:
        """What the algorithm is given."""

    @property
    def make_optimizer(self) -> Any:
        """See `Problem`."""
        optimizer = optimizers[self.optimizer]
        return partial(optimizer, **self.hparams.of(optimizer))


@dataclass(frozen=True)
class DomainCase(Case):
    """Of domain generalization.

    Attributes:
        num_domains: number K of source domains.
        classes: number of classes.
    """

    num_domains: int = 1
    classes: int = 2

    @property
    def plain(self) -> "Case":
        """See `Case.plain`."""
        return replace(self, algorithm=ERM, step=0, num_domains=1)

    def network(self) -> Model:
        """See `Case.network`."""
        return _network(self.model, Alike(self.hparams.of(models[self.model].build)), self.classes)

    def batch(self, batch_size: int) -> DomainBatch:
        """See `Case.batch`: so many rows of every domain."""
        side, sizes = self.network().image.size, (batch_size,) * self.num_domains
        return DomainBatch(torch.empty(sum(sizes), 3, side, side), torch.zeros(sum(sizes), dtype=torch.long), sizes)

    def problem(self, network: Any) -> Problem:
        """See `Case.problem`."""
        return Problem(network, self.make_optimizer, self.num_domains, self.precision)


@dataclass(frozen=True)
class TaskCase(Case):
    """Of several tasks.

    Attributes:
        dataset: its name.
        only_task: the one task that is learned; empty: all.
    """

    dataset: str = ""
    only_task: str = ""

    @property
    def plain(self) -> "Case":
        """See `Case.plain`: of the sum of the losses."""
        return replace(self, algorithm=ERM, step=0, hparams=Alike(self.hparams | solver_of("LS")))

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """The tasks that are learned."""
        kinds = task_datasets[self.dataset].kinds
        return {self.only_task: kinds[self.only_task]} if self.only_task else kinds

    def network(self) -> MultiTaskModel:
        """See `Case.network`."""
        return _task_network(
            self.model, Alike(self.hparams.of(task_models[self.model].build)), tuple(self.kinds.items())
        )

    def batch(self, batch_size: int) -> TaskBatch:
        """See `Case.batch`: so many rows."""
        height, width = task_datasets[self.dataset].size
        targets = (_target(kind, batch_size, height, width) for kind in self.kinds.values())
        return TaskBatch(torch.empty(batch_size, 3, height, width), tuple(targets))

    def problem(self, network: Any) -> Problem:
        """See `Case.problem`."""
        objectives = partial(
            TaskObjectives,
            tasks=tasks_of(self.kinds),
            heads=network.heads(network.code_shared),
            **self.hparams.of(TaskObjectives),
        )
        return Problem(network, self.make_optimizer, len(self.kinds), self.precision, objectives=objectives)


def case_of(run: RunConfig, cls: type[Algorithm], step: int, precision: Precision) -> Case:
    """The case of a step of a run."""
    kind, optimizer = kind_of(run.dataset), optimizers[run.optimizer]
    spec = kind.models[run.model]
    network = Alike({**run.of(spec.build), **spec.without_weights})
    hparams = Alike({**network, **run.of(optimizer), **cls.repeating(run.of(cls), FEW)})
    if kind is TASKS:
        hparams |= run.of(TaskObjectives) | _like_another(run.hparams["solver"], run.hparams["solver_hparams"])
        own = run.hparams["only_task"]
        return TaskCase(cls, run.model, run.optimizer, Alike(hparams), step, precision, run.dataset, own)
    classes = max(datasets[run.dataset].num_classes, _light_classes(run.model, network))
    return DomainCase(cls, run.model, run.optimizer, hparams, step, precision, len(run.source_envs), classes)


def _like_another(solver: str, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """The solver, or the first one of the same cost: what sets those apart is done on K or K x K numbers.

    Such solvers combine losses and gradients by the same method, and look at losses after a step, or do not.
    """
    cost = attrgetter("combine", "watches_losses_after")
    first = next(name for name, cls in solvers.items() if cost(cls) == cost(solvers[solver]))
    return {"solver": solver, "solver_hparams": hparams} if first == solver else solver_of(first)


def solver_of(name: str) -> dict[str, Any]:
    """A solver with its defaults, as hyperparameters."""
    return {"solver": name, "solver_hparams": solver_hparams(name)}


@cache
def _network(model: str, hparams: Alike, classes: int) -> Model:
    with torch.device("meta"):
        return build_model(model, [f"object {i}" for i in range(classes)], dict(hparams))


@cache
def _task_network(model: str, hparams: Alike, kinds: Sequence[tuple[str, Kind]]) -> MultiTaskModel:
    with torch.device("meta"):
        network: MultiTaskModel = task_models[model].build(tasks_of(dict(kinds)), **hparams)
        network.reached  # noqa: B018 - known once, for all copies
        return network


def _target(kind: Kind, rows: int, height: int, width: int) -> Tensor:
    """Targets of one task, of the types that samples have."""
    shapes = {"segmentation": (height, width), "depth": (1, height, width), "normal": (3, height, width)}
    dtype = torch.float32 if kind.word in ("depth", "normal") else torch.long
    return torch.zeros(rows, *shapes.get(kind.word, ()), dtype=dtype)


def _light_classes(model: str, hparams: Alike) -> int:
    """The most classes for which a head is still light compared with its network."""
    network = _network(model, hparams, 2)
    features, head = (sum(p.numel() for p in part.parameters()) for part in (network.featurizer, network.classifier))
    return int(LIGHT_HEAD * features / (head / 2))
