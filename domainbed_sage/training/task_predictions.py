"""What finished runs on several tasks predict for samples of the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from domainbed_sage.config import Machine
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.multitask.base import task_datasets
from domainbed_sage.training import finished
from domainbed_sage.training.finished import FinishedRun
from domainbed_sage.training.task_evaluator import TaskEvaluator

Arrays = dict[str, np.ndarray]  # of each task, in the order of the samples


@dataclass(frozen=True)
class Predicted:
    """Samples, and what was predicted for them.

    Attributes:
        dataset: its name.
        numbers: of the samples, in the test split.
        images: float32 [n, 3, H, W] in [0, 1].
        words: of each task the kind of its target, see `data.multitask.base.Kind`.
        truth: the targets of each task.
        rows: of each row of a table, predictions of its tasks; a row of networks for one task each has one of each.
    """

    dataset: str
    numbers: tuple[int, ...]
    images: np.ndarray
    words: Mapping[str, str]
    truth: Arrays
    rows: Mapping[str, Arrays]


def predicted(rows: Mapping[str, Sequence[Path]], machine: Machine, numbers: Sequence[int]) -> Predicted:
    """Let the final weights of finished runs predict the targets of test samples.

    Args:
        rows: folders of runs by row; later ones replace earlier ones where their tasks are the same.
        machine: where to compute, and where the data are.
        numbers: of the samples, in the test split.

    Raises:
        UserError: there is no run, runs are of several datasets, a number is too large, or a run cannot be loaded.
    """
    runs = {row: [finished.read(folder) for folder in folders] for row, folders in rows.items()}
    names = sorted({run.config.dataset for of_row in runs.values() for run in of_row})
    if len(names) != 1 or names[0] not in task_datasets:
        raise UserError(
            f"Predictions are drawn of finished runs on one dataset of several tasks. Found {names or 'no run'}."
        )
    data = task_datasets[names[0]].read(machine.data_dir)
    if wrong := [n for n in numbers if not 0 <= n < len(data.test)]:
        raise UserError(f"{names[0]} has the test samples 0 to {len(data.test) - 1}. Found {wrong}.")
    samples = [data.test[n] for n in numbers]
    images = torch.stack([image for image, _ in samples])
    truth = {task: torch.stack([y[k] for _, y in samples]).numpy() for k, task in enumerate(data.kinds)}
    found = {row: _of_row(of_row, machine, images) for row, of_row in runs.items()}
    words = {task: kind.word for task, kind in data.kinds.items()}
    return Predicted(names[0], tuple(numbers), images.numpy(), words, truth, found)


def _of_row(runs: Sequence[FinishedRun], machine: Machine, images: torch.Tensor) -> Arrays:
    arrays: Arrays = {}
    for run in runs:
        experiment = finished.load(run, machine)
        assert isinstance(experiment.evaluator, TaskEvaluator)  # the dataset has tasks
        with torch.inference_mode():
            outputs = experiment.algorithm.objectives.predict(images.to(machine.device))
        arrays |= {
            task.name: output.float().cpu().numpy()
            for task, output in zip(experiment.evaluator.tasks, outputs, strict=True)
        }
    return arrays
