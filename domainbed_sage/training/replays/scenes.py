"""Losses and metrics of recorded predictions of scenes, and recorded crops."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from domainbed_sage.results.delta_m import Baseline
from domainbed_sage.tasks import Crop, Depth, Normals, SceneTask, Segmentation
from domainbed_sage.tasks.scene_meters import BINS
from domainbed_sage.tasks.scenes import cropped
from domainbed_sage.training.recordings import Arrays
from domainbed_sage.training.replays.measured import Measured, distance, largest

CLOSE = 1e-9
HALF_BIN = 90 / BINS  # degrees; medians over all pixels are read from a histogram
INPUTS = {"segmentation": ("seg_pred", "label"), "depth": ("depth_pred", "depth"), "normals": ("normal_pred", "normal")}
COLUMNS = ("miou", "pixacc", "abserr", "relerr", "mean", "median", "w11", "w22", "w30")
PERCENT = ("miou", "pixacc", "w11", "w22", "w30")  # recorded as fractions
Pairs = list[tuple[Tensor, Tensor]]


class Predictions:
    """What was recorded of one dataset: predictions, targets, and their losses and metrics.

    Args:
        data: the first part of the arrays' names, as ``nyuv2``.
        arrays: the recording.
    """

    def __init__(self, data: str, arrays: Arrays) -> None:
        self.data, self.arrays = data, arrays
        marked = (key.split("/") for key in arrays if key.startswith(f"{data}/") and key.endswith("/seg_pred"))
        self.batches = sorted(int(number) for _, number, _ in marked)
        classes = arrays[f"{data}/{self.batches[0]}/seg_pred"].shape[1]
        all_tasks: tuple[SceneTask, ...] = (Segmentation(classes), Depth(), Normals())
        self.tasks = all_tasks[: 2 + (f"{data}/{self.batches[0]}/normal" in arrays)]

    def recorded(self, name: str) -> Any:
        """A recorded array."""
        return self.arrays[f"{self.data}/{name}"]

    def pairs(self, task: SceneTask) -> Pairs:
        """Predictions and targets of all batches."""
        names = INPUTS[task.name]
        return [tuple(torch.tensor(self.recorded(f"{b}/{name}")) for name in names) for b in self.batches]  # type: ignore[misc]

    def metrics(self, *, joined: bool = False) -> dict[str, float]:
        """Of all tasks, over the batches, or over all of them as one batch."""
        found = dict[str, float]()
        for task in self.tasks:
            pairs = self.pairs(task)
            found |= measured(task, as_one(pairs) if joined else pairs)
        return found

    def by_name(self, name: str) -> dict[str, float]:
        """Recorded figures as ours: percent where they are shares. The last columns, if there are fewer."""
        values = self.recorded(name).tolist()
        columns = COLUMNS[: len(self.recorded("metrics"))][-len(values) :]
        return {key: v * (100 if key in PERCENT else 1) for key, v in zip(columns, values, strict=True)}

    def distances(self) -> Iterator[tuple[str, float, float]]:
        """What was compared, its distance, and the tolerance."""
        losses = [[task.loss(*pair).item() for pair in self.pairs(task)] for task in self.tasks]
        yield "losses", distance(torch.tensor(losses, dtype=torch.float64).T, self.recorded("losses")), CLOSE
        found, whole = self.metrics(), self.metrics(joined=True)
        for name, value in self.by_name("metrics").items():
            yield name, distance(found[name], value), CLOSE
        present = 100 * float(self.recorded("nanmean_iou"))
        yield "miou_present", distance(found["miou_present"], present), CLOSE
        for name, value in self.by_name("as_one_batch").items():
            yield f"{name}, as one batch", distance(whole[name], value), CLOSE
            if name == "median":
                yield f"{name}_pixels, degrees", abs(found["median_pixels"] - value), HALF_BIN
            else:
                yield f"{name}_pixels", distance(found[f"{name}_pixels"], value), CLOSE
        yield "Δm", distance(self.delta_m(found), self.recorded("delta_m")), CLOSE

    def delta_m(self, found: Mapping[str, float]) -> float:
        """Δm against the recorded baseline."""
        baseline = self.by_name("baseline")
        better = dict(zip(baseline, self.recorded("higher_is_better").astype(bool).tolist(), strict=True))
        return Baseline("recorded", baseline, better).delta_m({name: found[name] for name in baseline})


def measured(task: SceneTask, pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """The metrics of one task over batches of predictions and targets."""
    meter = task.meter()
    for prediction, target in pairs:
        meter.update(prediction, target)
    return meter.compute()


def as_one(pairs: Pairs) -> Pairs:
    """All batches as one."""
    predictions, targets = zip(*pairs, strict=True)
    return [(torch.cat(predictions), torch.cat(targets))]


def measure_metrics(_info: Mapping[str, Any], arrays: Arrays) -> list[Measured]:
    """Every recorded dataset: losses, metrics over batches and over pixels, and Δm."""
    names = dict.fromkeys(key.split("/")[0] for key in arrays if key.endswith("/seg_pred"))
    return [
        Measured(f"{data}: {what}", off, tolerance, 1)
        for data in names
        for what, off, tolerance in Predictions(data, arrays).distances()
    ]


def crop_of(draws: Sequence[float]) -> Crop:
    """The crop that recorded draws stand for: scale, top row, left column, whether flipped, and its uniform number."""
    scale, top, left, flipped, _ = draws
    return Crop(scale, int(top), int(left), bool(flipped))


def measure_crops(_info: Mapping[str, Any], arrays: Arrays) -> list[Measured]:
    """Images and targets of every recorded crop; labels and depth, of nearest pixels, are exact."""
    tasks = (Segmentation(13, "label"), Depth(), Normals("normal"))
    found = dict[str, list[float]]()
    for draw in (key.removesuffix("/draws") for key in arrays if key.endswith("/draws")):
        data = draw.split("/")[0]
        there = tuple(task for task in tasks if f"{data}/{task.name}" in arrays)
        image, *targets = (torch.from_numpy(arrays[f"{data}/{name}"]) for name in ("image", *(t.name for t in there)))
        ours = cropped(image, tuple(targets), there, crop_of(arrays[f"{draw}/draws"].tolist()))
        for name, x in zip(("image", *(task.name for task in there)), ours, strict=True):
            found.setdefault(f"{data}: {name}", []).append(distance(x, arrays[f"{draw}/{name}"]))
    exact = ("label", "depth")
    return [largest(what, d, 0.0 if what.split(": ")[1] in exact else CLOSE) for what, d in found.items()]
