"""Accuracy of a model on the splits of the environments, on the full grid or where it is needed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from domainbed_sage.data.environment import Environment
from domainbed_sage.data.loaders import loaded
from domainbed_sage.data.splits import Split
from domainbed_sage.data.transforms import Transform

BATCH_SIZE = 64

Accuracies: TypeAlias = dict[str, float]


class Evaluator:
    """Measures accuracies; every image passes at most once per evaluation, in one pool of loader processes.

    Args:
        environments: all environments of the dataset.
        splits: in and out split of each.
        test_envs: indices of the held-out environments.
        transform: the evaluation transform, without augmentation, also for the source environments' out splits.
        normalize: map of a minibatch to the model's inputs, on the device.
        device: where the model is.
        num_workers: loader processes.
        with_losses: measure the mean cross-entropy beside every accuracy.

    Attributes:
        correct: for each held-out environment, whether each image of its in split was classified correctly when it was
            last measured, in the split's order.
    """

    def __init__(
        self,
        environments: Sequence[Environment],
        splits: Sequence[Split],
        test_envs: Sequence[int],
        transform: Transform,
        normalize: Transform,
        device: torch.device,
        num_workers: int = 0,
        with_losses: bool = False,
    ) -> None:
        self.with_losses = with_losses
        self.environments, self.splits, self.transform, self.normalize = environments, splits, transform, normalize
        self.test_envs, self.device, self.num_workers = set(test_envs), device, num_workers
        self.correct: dict[int, np.ndarray] = {}

    def full(self, predict: Callable[[Tensor], Tensor]) -> Accuracies:
        """In and out accuracy of every environment: DomainBed's record.

        `predict` maps inputs [N, 3, s, s] to logits [N, C] and has the model in evaluation mode.
        """
        return self.measure(predict, {(i, half) for i in range(len(self.splits)) for half in ("in", "out")})

    def lazy(self, predict: Callable[[Tensor], Tensor], best: float, last: bool) -> Accuracies:
        """What model selection reads, and NaN for the rest.

        Training-domain validation compares the source out splits of all evaluations, and reads the held-out
        environments only where their mean is a new best; the oracle reads them at the last step.

        Args:
            predict: see `full`.
            best: highest mean source out accuracy of the evaluations before.
            last: whether this is the run's last evaluation.
        """
        sources = [i for i in range(len(self.splits)) if i not in self.test_envs]
        found = self.measure(predict, {(i, "out") for i in sources})
        if last or self.source_accuracy(found) > best:
            found |= self.measure(predict, {(i, half) for i in self.test_envs for half in ("in", "out")})
        keys = [key(i, half) for i in range(len(self.splits)) for half in ("in", "out")]
        return dict.fromkeys(keys, float("nan")) | found

    def source_accuracy(self, accuracies: Mapping[str, float]) -> float:
        """Mean out accuracy of the source environments, computed as DomainBed's selection does."""
        sources = [i for i in range(len(self.splits)) if i not in self.test_envs]
        return float(np.mean([accuracies[key(i, "out")] for i in sources]))

    def source_loss(self, measured: Mapping[str, float]) -> float:
        """Mean over the source environments of the cross-entropy on their out splits."""
        sources = [i for i in range(len(self.splits)) if i not in self.test_envs]
        return float(np.mean([measured[key(i, "out", "loss")] for i in sources]))

    @torch.inference_mode()
    def measure(self, predict: Callable[[Tensor], Tensor], wanted: set[tuple[int, str]]) -> Accuracies:
        """Accuracy on each wanted (environment, "in" or "out"), whose images pass in the order of `sorted(wanted)`."""
        halves = [(i, half, self.splits[i].indices(half)) for i, half in sorted(wanted)]
        samples = [(self.environments[i], int(index)) for i, _, indices in halves for index in indices]
        rows = [range(len(samples))[start : start + BATCH_SIZE] for start in range(0, len(samples), BATCH_SIZE)]
        with closing(loaded(_Images(samples, self.transform), rows, self.num_workers)) as batches:
            hits, losses = self._of_rows(predict, batches)
        ends = np.cumsum([len(indices) for *_, indices in halves])[:-1]
        held_out = [i if half == "in" and i in self.test_envs else None for i, half, _ in halves]
        self.correct |= {i: part for i, part in zip(held_out, np.split(hits, ends), strict=True) if i is not None}
        found = {}
        for what, values in ({"acc": hits} | ({"loss": losses} if self.with_losses else {})).items():
            for (i, half, _), part in zip(halves, np.split(values, ends), strict=True):
                found[key(i, half, what)] = fraction(part)
        return found

    def _of_rows(
        self, predict: Callable[[Tensor], Tensor], batches: Iterable[list[Tensor]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether each row is classified correctly, and its cross-entropy if that is wanted."""
        hits, losses = [torch.zeros(0, dtype=torch.bool)], [torch.zeros(0)]
        for x, labels in batches:
            logits, y = predict(self.normalize(x.to(self.device, non_blocking=True))), labels.to(self.device)
            hits.append(logits.argmax(1) == y)
            if self.with_losses:
                losses.append(F.cross_entropy(logits.float(), y, reduction="none"))
        return _joined(hits), _joined(losses)


def _joined(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat([part.cpu() for part in parts]).numpy()


def key(env: int, half: str, what: str = "acc") -> str:
    """DomainBed's name of an accuracy in a record; that of a loss is formed alike."""
    return f"env{env}_{half}_{what}"


def fraction(correct: np.ndarray) -> float:
    """Share of correct samples, or the mean of numbers; NaN of none."""
    return float(correct.sum() / len(correct)) if len(correct) else float("nan")


class _Images(Dataset[list[Tensor]]):
    """Item `rows` holds the images [n, 3, s, s] and the labels [n] of these samples."""

    def __init__(self, samples: Sequence[tuple[Environment, int]], transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, rows: Sequence[int]) -> list[Tensor]:
        chosen = [self.samples[row] for row in rows]
        pairs = [(self.transform(env.image(index)), int(env.labels[index])) for env, index in chosen]
        images_and_labels: list[Tensor] = default_collate(pairs)
        return images_and_labels
