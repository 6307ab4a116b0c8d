"""What a predictor reaches that does not look at the image: the least that a network has to beat."""

from collections.abc import Sequence
from contextlib import closing
from functools import reduce

import torch

from domainbed_sage.data.loaders import loaded
from domainbed_sage.data.multitask.samples import Samples
from domainbed_sage.data.multitask.stream import EvaluationBatches
from domainbed_sage.tasks import Task
from domainbed_sage.training.evaluate import Accuracies
from domainbed_sage.training.task_evaluator import TaskEvaluator


def measured(train: Samples, tasks: Sequence[Task], evaluator: TaskEvaluator, num_workers: int = 0) -> Accuracies:
    """Metrics of the per-pixel trivial predictor, as `TaskEvaluator.full` names them.

    It says the same of every image: at each pixel the most frequent class, the mean depth and the mean normal there of
    the training samples, none of them augmented; of whole images, the frequencies of their labels.

    Args:
        train: the training samples; they are read once.
        tasks: what their targets are of.
        evaluator: of the test samples.
        num_workers: loader processes.
    """
    batches = EvaluationBatches(train, evaluator.batches.batch_size)
    with closing(loaded(batches, range(len(batches)), num_workers)) as read:
        tallies = ([task.tally(y) for task, y in zip(tasks, batch.targets, strict=True)] for batch in read)
        sums = reduce(lambda a, b: [x + y for x, y in zip(a, b, strict=True)], tallies)
    constants = [
        task.trivial(tally).to(evaluator.device, torch.float32) for task, tally in zip(tasks, sums, strict=True)
    ]
    return evaluator.full(lambda x: [constant.expand(len(x), *constant.shape) for constant in constants])
