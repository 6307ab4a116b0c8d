"""One label for each image, as on MultiMNIST and CelebA, with the calibration of its probabilities.

Accuracy is in percent. The Brier score and the expected calibration error are those of F-MTL's Tables 6 and 7 (Phan et
al., appendix D.2), as fractions: Σ_c (p_c - 1[y = c])², summed over all classes, also where there are two; and
Σ_m |B_m| / N |acc(B_m) - conf(B_m)| over the bins (m / M, (m + 1) / M] of the largest probability. The tables have M =
10 bins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from domainbed_sage.core.errors import UserError
from domainbed_sage.tasks.base import Meter, Task, check_shape, nothing_measured


class ProbabilityMeter(Meter):
    """Accuracy, Brier score and expected calibration error of probabilities [N, C] of class indices [N].

    Args:
        name: the task's name.
        bins: number M of bins of the calibration error.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {"accuracy": True, "brier": False, "ece": False}

    def __init__(self, name: str, bins: int) -> None:
        self.name, self.bins = name, bins
        self.sums: Tensor | None = None  # images, hits, confidence and squared errors of each bin [M, 4]

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """See `Meter.update`; `prediction` are probabilities."""
        check_shape(self.name, target, len(prediction))
        p = prediction.double()
        confidence, predicted = p.max(1)
        error = (p - F.one_hot(target.long(), p.shape[1])).square().sum(1)
        edges = torch.linspace(0, 1, self.bins + 1, dtype=p.dtype, device=p.device)
        if self.sums is None:
            self.sums = torch.zeros(self.bins, 4, dtype=p.dtype, device=p.device)
        row = torch.stack([torch.ones_like(error), (predicted == target).double(), confidence, error], 1)
        self.sums.index_add_(0, torch.bucketize(confidence, edges[1:-1]), row)

    def compute(self) -> dict[str, float]:
        """See `Meter.compute`."""
        if self.sums is None or not self.sums[:, 0].any():
            raise nothing_measured(self.name)
        images, hits, confidence, error = self.sums.unbind(1)
        total = images.sum()
        values = (100 * hits.sum() / total, error.sum() / total, (hits - confidence).abs().sum() / total)
        return dict(zip(self.higher_is_better, (float(value) for value in values), strict=True))


class _LogitMeter(ProbabilityMeter):
    """Of logits [N, C]."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """See `Meter.update`."""
        super().update(prediction.double().softmax(1), target)


class _OddsMeter(ProbabilityMeter):
    """Of the logits [N, 1] of label 1."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """See `Meter.update`."""
        logit = prediction.double()
        super().update(torch.cat([-logit, logit], 1).sigmoid(), target)


@dataclass(frozen=True)
class Classification(Task):
    """One of C classes: logits [N, C] and class indices [N]; the loss is the cross-entropy.

    Attributes:
        name: see `Task`.
        classes: number C of classes.
        bins: number M of bins of the calibration error.
    """

    name: str
    classes: int
    bins: int = 10

    def __post_init__(self) -> None:
        _check_bins(self.bins)
        if self.classes < 2:
            raise UserError(f"Task {self.name!r} should have at least 2 classes. Found {self.classes}.")

    @property
    def channels(self) -> int:
        """See `Task.channels`."""
        return self.classes

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See `Task.loss`."""
        check_shape(self.name, target, len(prediction))
        return F.cross_entropy(prediction, target.long())

    def meter(self) -> Meter:
        """See `ProbabilityMeter`."""
        return _LogitMeter(self.name, self.bins)

    def tally(self, target: Tensor) -> Tensor:
        """See `Task.tally`: how often each class occurs [C]."""
        return target.long().bincount(minlength=self.classes).double()

    def trivial(self, tally: Tensor) -> Tensor:
        """See `Task.trivial`: logits of the classes' frequencies."""
        return (tally / tally.sum()).log()


@dataclass(frozen=True)
class Attribute(Task):
    """Whether an image has an attribute: the logit [N, 1] that it has, and labels 0 or 1 [N].

    The loss is the cross-entropy of the two probabilities.

    Attributes:
        name: see `Task`.
        bins: number M of bins of the calibration error.
    """

    name: str
    bins: int = 10

    def __post_init__(self) -> None:
        _check_bins(self.bins)

    @property
    def channels(self) -> int:
        """See `Task.channels`."""
        return 1

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """See `Task.loss`."""
        check_shape(self.name, target, len(prediction))
        return F.binary_cross_entropy_with_logits(prediction.squeeze(1), target.to(prediction.dtype))

    def meter(self) -> Meter:
        """See `ProbabilityMeter`."""
        return _OddsMeter(self.name, self.bins)

    def tally(self, target: Tensor) -> Tensor:
        """See `Task.tally`: how many images have the attribute, and how many have not [2]."""
        has = target.sum(dtype=torch.float64)
        return torch.stack([has, len(target) - has])

    def trivial(self, tally: Tensor) -> Tensor:
        """See `Task.trivial`: the logit of the share that has it."""
        has, has_not = tally
        return (has / has_not).log()[None]


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise UserError(f"A calibration error should have at least one bin. Found {bins}.")
