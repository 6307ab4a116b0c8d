"""Streaming metrics of scenes; see `domainbed_sage.tasks.scenes` for what is averaged over what."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from domainbed_sage.tasks.base import Meter, check_shape, nothing_measured

SHARES = {"w11": 11.25, "w22": 22.5, "w30": 30.0}  # name, and the angle in degrees that errors are to stay below
BINS = 18_000  # of angles; one is 0.01°


class ConfusionMeter(Meter):
    """Mean intersection over union, and pixel accuracy, in percent, from one confusion matrix over all batches.

    ``miou`` is NaN, as in the authors' codes, if a class is in neither targets nor predictions: its IoU is 0 / 0.
    ``miou_present`` is the mean over the others.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {"miou": True, "pixacc": True, "miou_present": True}

    def __init__(self, name: str, classes: int, ignored: int) -> None:
        self.name, self.classes, self.ignored = name, classes, ignored
        self.confusion: Tensor | None = None  # pixels of class i that were taken for class j [C * C]

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """See `Meter.update`; a label that is no class raises an error here or, on a GPU, later."""
        check_shape(self.name, target, *prediction[:, 0].shape)
        if self.confusion is None:
            self.confusion = torch.zeros(self.classes**2, dtype=torch.int64, device=prediction.device)
        valid = target != self.ignored
        pairs = torch.where(valid, target, 0).long() * self.classes + prediction.argmax(1)
        self.confusion.index_add_(0, pairs.flatten(), valid.flatten().long())

    def compute(self) -> dict[str, float]:
        """See `Meter.compute`."""
        if self.confusion is None or not self.confusion.any():
            raise nothing_measured(self.name)
        pixels = self.confusion.reshape(self.classes, self.classes).double().cpu()
        hits = pixels.diag()
        iou = hits / (pixels.sum(0) + pixels.sum(1) - hits)
        percent = 100 * torch.stack([iou.mean(), hits.sum() / pixels.sum(), iou.nanmean()])
        return dict(zip(self.higher_is_better, percent.tolist(), strict=True))


class MeanMeter(Meter):
    """Means of M pixel errors: over batches of each batch's mean, and over all pixels."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.batch_means: Tensor | None = None  # sum over batches of M figures, and the number of batches
        self.pixel_sums: Tensor | None = None  # sum over pixels of M' errors, and the number of pixels

    def add(self, errors: list[Tensor], valid: Tensor, *figures: Tensor) -> None:
        """Count a batch.

        Args:
            errors: M' errors of each pixel, each of the shape of `valid`; anything, but no NaN, where it is invalid.
            valid: whether a pixel counts.
            figures: figures [] of the batch that are no means over pixels.
        """
        sums = torch.stack([(error * valid).sum(dtype=torch.float64) for error in errors])
        pixels = valid.sum()
        any_valid = pixels.clamp_max(1).double()
        row = torch.cat([sums / pixels.clamp_min(1), *(figure.double()[None] * any_valid for figure in figures)])
        batch, total = torch.cat([row, any_valid[None]]), torch.cat([sums, pixels.double()[None]])
        self.batch_means = batch if self.batch_means is None else self.batch_means + batch
        self.pixel_sums = total if self.pixel_sums is None else self.pixel_sums + total

    def means(self) -> tuple[list[float], list[float]]:
        """The figures' means over batches, those of `errors` first, and the errors' means over pixels."""
        if self.batch_means is None or self.pixel_sums is None or not self.pixel_sums[-1]:
            raise nothing_measured(self.name)
        over_batches, over_pixels = ((sums[:-1] / sums[-1]).tolist() for sums in (self.batch_means, self.pixel_sums))
        return over_batches, over_pixels


class DepthMeter(MeanMeter):
    """Mean absolute error, in the unit of the depth, and mean relative error |p - g| / g, a ratio."""

    higher_is_better: ClassVar[Mapping[str, bool]] = dict.fromkeys(
        ("abserr", "relerr", "abserr_pixels", "relerr_pixels"), False
    )

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """See `Meter.update`."""
        check_shape(self.name, target, *prediction.shape)
        valid = target != 0
        error = (prediction - target).abs()
        self.add([error, error / torch.where(valid, target, 1).abs()], valid)

    def compute(self) -> dict[str, float]:
        """See `Meter.compute`."""
        over_batches, over_pixels = self.means()
        return dict(zip(self.higher_is_better, (*over_batches, *over_pixels), strict=True))


class NormalsMeter(MeanMeter):
    """Angles between predicted and true normals in degrees: mean, median, and the shares in percent below three bounds.

    ``median`` is the mean of the batches' medians. ``median_pixels``, of all pixels, is read from a histogram with bins
    of 0.01°, so that it may be off by 0.005°. A prediction that is NaN counts as 180° for medians and shares, and makes
    the means NaN.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        name + suffix: higher
        for suffix in ("", "_pixels")
        for name, higher in (("mean", False), ("median", False), *dict.fromkeys(SHARES, True).items())
    }

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.histogram: Tensor | None = None

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """See `Meter.update`."""
        check_shape(self.name, target, *prediction.shape)
        valid = target.sum(1) != 0
        angle = (prediction * target).sum(1).clamp(-1, 1).acos().rad2deg()
        worst = angle.nan_to_num(180.0)
        shares = [100 * (worst < bound).to(angle) for bound in SHARES.values()]
        self.add([angle, *shares], valid, _median(worst, valid))
        if self.histogram is None:
            self.histogram = torch.zeros(BINS, dtype=torch.int64, device=angle.device)
        places = (worst * (BINS / 180)).long().clamp_max(BINS - 1)
        self.histogram.index_add_(0, places.flatten(), valid.flatten().long())

    def compute(self) -> dict[str, float]:
        """See `Meter.compute`."""
        (mean, *shares, median), (mean_pixels, *shares_pixels) = self.means()
        if self.histogram is None:
            raise nothing_measured(self.name)
        values = (mean, median, *shares, mean_pixels, _histogram_median(self.histogram), *shares_pixels)
        return dict(zip(self.higher_is_better, values, strict=True))


def _median(values: Tensor, valid: Tensor) -> Tensor:
    """Median [] of the valid values, the mean of the two in the middle; something finite if none is valid."""
    ordered = torch.where(valid, values, 180.0).flatten().sort().values
    count = valid.sum()
    middle = torch.stack([(count - 1).clamp_min(0) // 2, count // 2])
    return ordered.gather(0, middle).mean()


def _histogram_median(histogram: Tensor) -> float:
    """Median of the angles in a histogram, as if each lay in the middle of its bin, in degrees."""
    below = histogram.cpu().cumsum(0)
    count = int(below[-1])
    bins = torch.searchsorted(below, torch.tensor([(count - 1) // 2, count // 2]), right=True)
    return float((bins + 0.5).mean() * (180 / BINS))
