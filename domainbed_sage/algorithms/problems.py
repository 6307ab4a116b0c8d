"""What kind of problem a dataset poses: which networks it takes, and which hyperparameters belong to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.core.registry import Registry
from domainbed_sage.data.multitask.base import TaskDataSpec
from domainbed_sage.data.multitask.options import TaskOptions
from domainbed_sage.data.multitask.specs import task_datasets
from domainbed_sage.data.specs import DatasetSpec, datasets
from domainbed_sage.data.transforms import DataOptions
from domainbed_sage.models import ModelSpec, models
from domainbed_sage.models.task_models import task_models

Specification: TypeAlias = DatasetSpec | TaskDataSpec


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        datasets: by name.
        models: by name.
        configurables: further parts with hyperparameters.
        completed: see `Algorithm.completed`.
    """

    datasets: Registry[Any]
    models: Registry[ModelSpec]
    configurables: tuple[Any, ...]
    completed: Callable[[Mapping[str, Any]], dict[str, Any]] = dict


DOMAINS = Kind(datasets, models, (DataOptions,))
TASKS = Kind(task_datasets, task_models, (TaskOptions, TaskObjectives), TaskObjectives.completed)


def kind_of(dataset: str) -> Kind:
    """The kind of problem that a dataset poses; that of a dataset that is not known is domain generalization."""
    return TASKS if dataset in task_datasets else DOMAINS


def specification(dataset: str) -> Specification:
    """What is known of the dataset of this name.

    Raises:
        UserError: there is none.
    """
    found: Specification = kind_of(dataset).datasets[dataset]
    return found
