"""Accuracy of a model on the splits of the environments."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from domainbed_sage.data.environment import Environment
from domainbed_sage.data.splits import Split
from domainbed_sage.data.transforms import Transform

BATCH_SIZE = 64


class _Images(Dataset[tuple[Tensor, int]]):
    def __init__(self, environment: Environment, transform: Transform) -> None:
        self.environment, self.transform = environment, transform

    def __len__(self) -> int:
        return len(self.environment)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.environment.image(index)), int(self.environment.labels[index])


class Evaluator:
    """Measures accuracies on all environments; every image passes once per evaluation, whatever its split.

    Args:
        environments: all environments of the dataset.
        splits: in and out split of each.
        transform: the evaluation transform, without augmentation, also for the source environments' out splits.
        device: where the model is.
        num_workers: loader processes.
    """

    def __init__(
        self,
        environments: Sequence[Environment],
        splits: Sequence[Split],
        transform: Transform,
        device: torch.device,
        num_workers: int = 0,
    ) -> None:
        self.splits, self.device = splits, device
        self.loaders = [
            DataLoader(_Images(e, transform), batch_size=BATCH_SIZE, num_workers=num_workers) for e in environments
        ]

    @torch.inference_mode()
    def run(self, predict: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, float]]:
        """Yield (`env<i>_in_acc`, fraction), (`env<i>_out_acc`, fraction) for every environment i.

        `predict` maps inputs [N, 3, s, s] to logits [N, C] and has the model in evaluation mode.
        """
        for i, (loader, split) in enumerate(zip(self.loaders, self.splits, strict=True)):
            correct = [predict(x.to(self.device)).argmax(1).cpu() == y for x, y in loader]
            hits = torch.cat(correct).numpy()
            yield f"env{i}_in_acc", accuracy(hits, split.in_)
            yield f"env{i}_out_acc", accuracy(hits, split.out)


def accuracy(hits: np.ndarray, indices: np.ndarray) -> float:
    """Fraction of correct samples among the indices; NaN of none."""
    return float(hits[indices].sum() / len(indices)) if len(indices) else float("nan")
