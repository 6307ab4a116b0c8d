"""The parts of a run, built from its description."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from domainbed_sage.algorithms import Algorithm, Problem, algorithms
from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.data import corrupt
from domainbed_sage.data.decode import decoder
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.specs import datasets
from domainbed_sage.data.splits import Split, check_sizes, split
from domainbed_sage.data.stream import TrainStream
from domainbed_sage.data.transforms import DataOptions, Transform, eval_transform, normalize, train_transform
from domainbed_sage.models import build_model, models
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.training import provenance
from domainbed_sage.training.evaluate import Evaluator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """The parts of a run, built from its description; `metadata` is in every record, `classes` are names by label."""

    algorithm: Algorithm
    stream: TrainStream
    normalize: Transform
    evaluator: Evaluator
    steps_per_epoch: float
    metadata: dict[str, Any]
    classes: tuple[str, ...]


def build(config: RunConfig, machine: Machine) -> Experiment:
    """Build model, algorithm, minibatch stream and evaluator of a run; the weights depend on its seed alone."""
    _set_precision(config)
    weights = models[config.model].require(config.of(models[config.model].build))
    options = DataOptions(**config.of(DataOptions))
    dataset, splits = read_data(config, machine, options)
    torch.manual_seed(config.seed)
    model = build_model(config.model, dataset.class_names, config.of(models[config.model].build)).to(machine.device)
    make_optimizer = partial(optimizers[config.optimizer], **config.of(optimizers[config.optimizer]))
    cls = algorithms[config.algorithm]
    problem = Problem(
        model,
        make_optimizer,
        len(config.source_envs),
        config.precision,
        steps=config.steps,
        batch_size=options.batch_size,
        evaluations=len(range(0, config.steps, config.checkpoint_freq)),
        hparams=config.hparams,
    )
    algorithm = cls(problem, **config.of(cls))
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
    metadata = provenance.metadata(config, machine, dataset, weights)
    return Experiment(algorithm, stream, to_input, evaluator, smallest / options.batch_size, metadata, dataset.classes)


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
