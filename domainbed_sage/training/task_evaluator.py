"""The metrics of a multi-task network on the test samples."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from domainbed_sage.data.loaders import loaded
from domainbed_sage.data.multitask.samples import Samples
from domainbed_sage.data.multitask.stream import EvaluationBatches
from domainbed_sage.tasks import Task
from domainbed_sage.training.evaluate import Accuracies

MOST_SHOWN = 3  # tasks in a row for people


class TaskEvaluator:
    """Measures every task on the test samples at every evaluation; nothing is selected by it.

    Args:
        samples: the test samples.
        tasks: what their targets are of.
        batch_size: that of training, as its authors do: their metrics of scenes are means over batches.
        device: where the model is.
        num_workers: loader processes.
    """

    def __init__(
        self, samples: Samples, tasks: Sequence[Task], batch_size: int, device: torch.device, num_workers: int = 0
    ) -> None:
        self.batches, self.tasks = EvaluationBatches(samples, batch_size), tasks
        self.device, self.num_workers = device, num_workers

    @torch.inference_mode()
    def full(self, predict: Callable[[Tensor], Sequence[Tensor]]) -> Accuracies:
        """The metrics of all tasks, as ``test_<task>_<metric>``.

        `predict` maps images [N, 3, H, W] to one prediction a task, and has the model in evaluation mode.
        """
        meters = [task.meter() for task in self.tasks]
        with closing(loaded(self.batches, range(len(self.batches)), self.num_workers)) as batches:
            for batch in batches:
                there = batch.to(self.device)
                for meter, prediction, target in zip(meters, predict(there.x), there.targets, strict=True):
                    meter.update(prediction, target)
        found = zip(self.tasks, meters, strict=True)
        return {key(task.name, name): v for task, meter in found for name, v in meter.compute().items()}

    def lazy(self, predict: Callable[[Tensor], Any], best: float, last: bool) -> Accuracies:
        """As `full`: there is no less to measure."""
        del best, last
        return self.full(predict)

    def source_accuracy(self, accuracies: Mapping[str, float]) -> float:
        """NaN: no step is selected."""
        del accuracies
        return float("nan")

    source_loss = source_accuracy

    @property
    def higher_is_better(self) -> dict[str, bool]:
        """The direction of every metric, by its key in records."""
        metrics = ((task.name, task.meter().higher_is_better) for task in self.tasks)
        return {key(task, name): better for task, directions in metrics for name, better in directions.items()}

    @property
    def shown(self) -> list[str]:
        """One metric of each task, for people: the first one."""
        return [key(task.name, next(iter(task.meter().higher_is_better))) for task in self.tasks[:MOST_SHOWN]]


def key(task: str, metric: str) -> str:
    """Name of a metric in a record."""
    return f"test_{task}_{metric}"
