"""The parts of a run, built from its description."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from domainbed_sage.algorithms import Algorithm, Problem, algorithms
from domainbed_sage.algorithms.problems import TASKS, kind_of
from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import corrupt
from domainbed_sage.data.decode import decoder
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.multitask.stream import TaskStream
from domainbed_sage.data.specs import datasets
from domainbed_sage.data.splits import Split, check_sizes, split
from domainbed_sage.data.stream import TrainStream
from domainbed_sage.data.transforms import DataOptions, Transform, eval_transform, normalize, train_transform
from domainbed_sage.models import Model, build_model, models
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.training import provenance
from domainbed_sage.training.evaluate import Evaluator
from domainbed_sage.training.task_evaluator import TaskEvaluator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """The parts of a run, built from its description.

    Attributes:
        algorithm: made anew.
        stream: its minibatches.
        normalize: map of a minibatch's inputs, on the device, to the network's.
        evaluator: measures it.
        steps_per_epoch: steps of a pass over the data.
        metadata: what is in every record.
        classes: their names by label; none where several tasks are learned.
        of_model: what the file of the model says about it.
        after_epochs: whether it is evaluated at the end of every `checkpoint_freq` steps, and not at the first of them,
            as DomainBed does.
        measured: what else is in every record and takes a pass over the data; whoever only loads a model does without.
    """

    algorithm: Algorithm
    stream: TrainStream | TaskStream
    normalize: Transform
    evaluator: Evaluator | TaskEvaluator
    steps_per_epoch: float
    metadata: dict[str, Any]
    classes: tuple[str, ...]
    of_model: dict[str, Any]
    after_epochs: bool = False
    measured: Callable[[], dict[str, Any]] = dict

    def is_evaluated(self, step: int, checkpoint_freq: int) -> bool:
        """Whether the weights after this step are; those after the last one always are."""
        return (step + self.after_epochs) % checkpoint_freq == 0


def of_domains(experiment: Experiment) -> Evaluator:
    """The evaluator of a run of domain generalization.

    Raises:
        UserError: it is a run on several tasks, of which there are no accuracies of single images.
    """
    if isinstance(experiment.evaluator, Evaluator):
        return experiment.evaluator
    raise UserError(
        f"Which images are classified correctly is known of domain generalization alone, and "
        f"{experiment.metadata['args']['dataset']} has several tasks: its metrics are in results.jsonl."
    )


def build(config: RunConfig, machine: Machine) -> Experiment:
    """Build the parts of a run, of whatever kind its problem is."""
    from domainbed_sage.training.task_experiment import build_tasks  # which needs `Experiment`

    _set_precision(config)
    return (build_tasks if kind_of(config.dataset) is TASKS else build_domains)(config, machine)


def build_domains(config: RunConfig, machine: Machine) -> Experiment:
    """Build model, algorithm, minibatch stream and evaluator of a run; the weights depend on its seed alone."""
    weights = models[config.model].require(config.of(models[config.model].build))
    options = DataOptions(**config.of(DataOptions))
    dataset, splits = read_data(config, machine, options)
    torch.manual_seed(config.seed)
    model = build_model(config.model, dataset.class_names, config.of(models[config.model].build)).to(machine.device)
    evaluations = len(range(0, config.steps, config.checkpoint_freq))
    algorithm = learner(config, model, len(config.source_envs), batch_size=options.batch_size, evaluations=evaluations)
    environments = [env.decoded_by(decoder(options.decode, model.image.size)) for env in dataset.environments]
    stream = TrainStream(
        [environments[i] for i in config.source_envs],
        [splits[i].in_ for i in config.source_envs],
        options.batch_size,
        train_transform(options, model.image),
        config.seed,
    )
    to_input = normalize(model.image)
    evaluator = Evaluator(
        environments,
        splits,
        config.test_envs,
        eval_transform(options, model.image),
        to_input,
        machine.device,
        machine.num_workers,
        with_losses=algorithm.watches_loss,
    )
    smallest = min(len(s.in_) for s in splits)
    _check_sizes(dataset, config, [len(s.in_) for s in splits], options.batch_size)
    population, names = (dataset.variant, dataset.notes), [env.name for env in dataset.environments]
    metadata = provenance.metadata(config, machine, "domain_generalization", names, population, weights)
    of_model = {
        "model_input_shape": [3, model.image.size, model.image.size],
        "model_num_classes": datasets[config.dataset].num_classes,
        "model_num_domains": len(config.source_envs),
    }
    epoch = smallest / options.batch_size
    return Experiment(algorithm, stream, to_input, evaluator, epoch, metadata, dataset.classes, of_model)


def learner(config: RunConfig, model: Model, losses: int, **facts: Any) -> Algorithm:
    """The run's algorithm, which trains this network by so many losses; `facts` are further fields of `Problem`."""
    optimizer, cls = optimizers[config.optimizer], algorithms[config.algorithm]
    make_optimizer = partial(optimizer, **config.of(optimizer))
    facts |= {"steps": config.steps, "hparams": config.hparams}
    return cls(Problem(model, make_optimizer, losses, config.precision, **facts), **config.of(cls))


def read_data(config: RunConfig, machine: Machine, options: DataOptions) -> tuple[MultiDomainDataset, list[Split]]:
    """The run's dataset, and the in/out split of every environment."""
    dataset = datasets[config.dataset].load(machine.data_dir)
    splits = [
        split(len(env), i, config.trial_seed, config.holdout_fraction) for i, env in enumerate(dataset.environments)
    ]
    dataset, splits = corrupt.apply(dataset, splits, options.corrupt)
    check_sizes([env.name for env in dataset.environments], splits, config.test_envs, config.holdout_fraction)
    return dataset, splits


def _set_precision(config: RunConfig) -> None:
    tf32 = config.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = config.precision == "bf16"  # as PyTorch's own
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _check_sizes(dataset: MultiDomainDataset, config: RunConfig, sizes: list[int], batch_size: int) -> None:
    for i in config.source_envs:
        name = dataset.environments[i].name
        if batch_size > sizes[i]:
            log.warning(
                "batch_size %d is larger than the in split of %s (%d images): rows are drawn with replacement, as in "
                "DomainBed, so a minibatch contains repeats.",
                *(batch_size, name, sizes[i]),
            )
