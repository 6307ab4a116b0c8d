"""Predictions of a finished run's model on any environment and split of its dataset."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from domainbed_sage.algorithms.problems import TASKS, kind_of
from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.data.specs import datasets
from domainbed_sage.results.records import FloatArray, IntArray
from domainbed_sage.training import finished
from domainbed_sage.training.evaluate import key
from domainbed_sage.training.experiment import Experiment, of_domains
from domainbed_sage.training.finished import FinishedRun
from domainbed_sage.training.metrics import Scores

HALVES = ("in", "out")


@dataclass(frozen=True, eq=False)
class SplitResult:
    """The predictions on one split of one environment: n images, C classes.

    Attributes:
        env: index of the environment.
        environment: name of its folder.
        held_out: whether the run held it out.
        split: ``in`` or ``out``.
        keys: name of every image inside the environment [n].
        labels, predicted: class indices [n]; where classes have equal logits, the first one is predicted.
        probability: softmax of the logits at the prediction [n].
        logits: [n, C]; None unless they were asked for.
        recorded: accuracy in the run's last record; NaN where it was not evaluated.
        scores: accuracies and confusion matrix.
    """

    env: int
    environment: str
    held_out: bool
    split: str
    keys: list[str]
    labels: IntArray
    predicted: IntArray
    probability: FloatArray
    logits: FloatArray | None
    recorded: float
    scores: Scores

    @property
    def differs(self) -> bool:
        """Whether the accuracy differs from the recorded one, even in the last bit."""
        return not math.isnan(self.recorded) and self.scores.accuracy != self.recorded


@dataclass(frozen=True)
class Assessment:
    """The predictions of a run's model.

    Attributes:
        run: the run.
        classes: names of the classes by label.
        notes: what the dataset's folder says of the data now.
        results: one for each split that was asked for, in the order of the environments.
    """

    run: FinishedRun
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    results: tuple[SplitResult, ...]


def assess(
    folder: Path,
    machine: Machine,
    envs: Sequence[str] = (),
    splits: Sequence[str] = HALVES,
    *,
    keep_logits: bool = False,
    images: Path | None = None,
) -> Assessment:
    """Evaluate the final weights of the run in a folder.

    On the machine that trained it, each accuracy equals that of the last record: data, splits, transforms, batches and
    arithmetic are those of training.

    Args:
        folder: the run's folder.
        machine: where to compute.
        envs: environments, by label, folder name or index; all if empty.
        splits: ``in``, ``out`` or both.
        keep_logits: keep all logits, and not only the prediction and its probability.
        images: the folder of images that is the run's dataset, if it is one and has moved.

    Raises:
        UserError: unknown environments; see also `finished.read` and `finished.load`.
    """
    run = finished.read(folder, images)
    if kind_of(run.config.dataset) is TASKS:
        raise UserError(
            f"{folder} learned the tasks of {run.config.dataset}. Single predictions are written of domain "
            "generalization alone; `domainbed-sage predictions` draws those of tasks, whose metrics are in "
            "results.jsonl."
        )
    chosen = _indices(run.config, envs)
    experiment = finished.load(run, machine)
    wanted = {(env, split) for env in chosen for split in splits}
    results: list[SplitResult] = []
    for together in measured_together(run.config, len(of_domains(experiment).environments)):
        if some := sorted(together & wanted):
            results += _predict(run, experiment, some, keep_logits)
    results.sort(key=lambda result: (result.env, result.split))
    return Assessment(run, experiment.classes, tuple(experiment.metadata["data"]["notes"]), tuple(results))


def measured_together(config: RunConfig, n_envs: int) -> list[set[tuple[int, str]]]:
    """Groups of (environment, split) whose images share batches in the run's last evaluation.

    The last bits of logits may depend on the size of the batch. What lazy evaluation leaves out is the last group.
    """
    every = {(env, half) for env in range(n_envs) for half in HALVES}
    if config.evaluation == "full":
        return [every]
    sources = {(env, "out") for env in config.source_envs}
    held_out = {(env, half) for env in config.test_envs for half in HALVES}
    return [sources, held_out, every - sources - held_out]


class _Recorder:
    """A model's forward function that keeps its predictions, on the CPU."""

    def __init__(self, forward: Callable[[Tensor], Tensor], num_classes: int, keep_logits: bool) -> None:
        self.forward = forward
        self.predicted = [torch.zeros(0, dtype=torch.long)]
        self.probability = [torch.zeros(0)]
        self.logits = [torch.zeros(0, num_classes)] if keep_logits else None

    def __call__(self, x: Tensor) -> Tensor:
        logits = self.forward(x)
        predicted = logits.argmax(1)  # as `Evaluator` counts hits
        self.predicted.append(predicted.cpu())
        self.probability.append(logits.softmax(1).gather(1, predicted[:, None])[:, 0].cpu())
        if self.logits is not None:
            self.logits.append(logits.cpu())
        return logits


def _predict(
    run: FinishedRun, experiment: Experiment, wanted: Sequence[tuple[int, str]], keep_logits: bool
) -> Iterator[SplitResult]:
    evaluator, num_classes = of_domains(experiment), len(experiment.classes)
    recorder = _Recorder(experiment.algorithm.forward, num_classes, keep_logits)
    evaluator.measure(recorder, set(wanted))
    rows = [evaluator.splits[env].indices(half) for env, half in wanted]
    ends = np.cumsum([len(indices) for indices in rows])
    for (env, half), indices, end in zip(wanted, rows, ends, strict=True):
        part = slice(end - len(indices), end)
        environment = evaluator.environments[env]
        labels, predicted = environment.labels[indices], torch.cat(recorder.predicted)[part].numpy()
        recorded = run.last.get(key(env, half))
        yield SplitResult(
            env=env,
            environment=environment.name,
            held_out=env in run.config.test_envs,
            split=half,
            keys=[environment.keys[index] for index in indices],
            labels=labels,
            predicted=predicted,
            probability=torch.cat(recorder.probability)[part].numpy(),
            logits=None if recorder.logits is None else torch.cat(recorder.logits)[part].numpy(),
            recorded=float("nan") if recorded is None else float(recorded),
            scores=Scores.of(labels, predicted, num_classes),
        )


def _indices(config: RunConfig, envs: Sequence[str]) -> list[int]:
    """Indices of environments given by label, folder name or index, in this order of precedence; all if none is."""
    spec = datasets[config.dataset]
    folders = spec.expected.environments or ()
    named = {name: i for names in (folders, spec.environments) for i, name in enumerate(names)}
    indices = {str(i): i for i in range(len(spec.environments))} | named
    known = ", ".join(f"{i} = {name}" for i, name in enumerate(spec.environments))
    raise_all(
        [f"{spec.name} has no environment {env!r}. Known: {known}." for env in envs if env not in indices], "--envs"
    )
    return sorted({indices[env] for env in envs or indices})
