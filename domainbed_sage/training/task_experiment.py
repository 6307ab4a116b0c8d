"""The parts of a run on several tasks, built from its description."""

from collections.abc import Mapping
from functools import partial

import torch

from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import UserError, known
from domainbed_sage.data.multitask.base import Kind, TaskData, task_datasets
from domainbed_sage.data.multitask.options import TaskOptions
from domainbed_sage.data.multitask.stream import OneTask, TaskStream
from domainbed_sage.models.task_models import task_models
from domainbed_sage.tasks import Classification, Depth, Normals, Segmentation, Task
from domainbed_sage.training import provenance, trivial
from domainbed_sage.training.experiment import Experiment, learner
from domainbed_sage.training.task_evaluator import TaskEvaluator


def build_tasks(config: RunConfig, machine: Machine) -> Experiment:
    """Build model, algorithm, minibatch stream and evaluator of a run; the weights depend on its seed alone."""
    options = TaskOptions(**config.of(TaskOptions))
    data = task_datasets[config.dataset].read(machine.data_dir)
    tasks, (train, test) = tasks_of(data.kinds), (data.train, data.test)
    if options.only_task:
        k = _number(data, options.only_task)
        tasks, train, test = tasks[k : k + 1], OneTask(train, k), OneTask(test, k)
    torch.manual_seed(config.seed)
    spec = task_models[config.model]
    model = spec.build(tasks, **config.of(spec.build)).to(machine.device)
    stream = TaskStream(train, tasks, options.batch_size, options.augment == "mtan", config.seed)
    objectives = partial(
        TaskObjectives,
        tasks=tasks,
        heads=model.heads(model.code_shared),
        steps_per_epoch=stream.steps_per_epoch,
        **config.of(TaskObjectives),
    )
    evaluations = config.steps // config.checkpoint_freq
    facts = {"batch_size": options.batch_size, "evaluations": evaluations, "objectives": objectives}
    evaluator = TaskEvaluator(test, tasks, options.batch_size, machine.device, machine.num_workers)
    weights, population = spec.require(config.of(spec.build)), (data.population, data.notes)
    return Experiment(
        learner(config, model, len(tasks), **facts),
        stream,
        lambda x: x,
        evaluator,
        stream.steps_per_epoch,
        provenance.metadata(config, machine, "multi_task", list(data.splits), population, weights)
        | {"higher_is_better": evaluator.higher_is_better},
        classes=(),
        of_model={"model_tasks": {task.name: task.channels for task in tasks}},
        after_epochs=True,
        measured=lambda: {"trivial": trivial.measured(train, tasks, evaluator, machine.num_workers)},
    )


def tasks_of(kinds: Mapping[str, Kind]) -> list[Task]:
    """The tasks of what is to be predicted, in its order.

    Raises:
        UserError: one is of a kind that is not known.
    """
    return [_task(name, kind) for name, kind in kinds.items()]


def _number(data: TaskData, name: str) -> int:
    names = list(data.kinds)
    if name not in names:
        raise UserError(f"{data.name} has no task {name!r} (only_task). {known(names)}.")
    return names.index(name)


def _task(name: str, kind: Kind) -> Task:
    match kind.word:
        case "segmentation":
            return Segmentation(kind.channels, name)
        case "depth":
            return Depth(name)
        case "normal":
            return Normals(name)
        case "classification":
            return Classification(name, kind.channels)
    raise UserError(f"Task {name} is of an unknown kind. Found {kind.word!r}.")
