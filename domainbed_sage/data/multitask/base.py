"""What a multi-task dataset is, and the registry of those that are known; names and counts need no PyTorch."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.core.registry import Registry

if TYPE_CHECKING:
    from domainbed_sage.data.multitask.samples import Samples

Word: TypeAlias = Literal["segmentation", "depth", "normal", "classification"]


@dataclass(frozen=True)
class Kind:
    """What is to be predicted, at every pixel or once for an image.

    Attributes:
        word: ``segmentation``: class indices, int64 [H, W], -1 is ignored. ``depth``: float32 [1, H, W], 0 is invalid.
            ``normal``: unit vectors, float32 [3, H, W], (0, 0, 0) is invalid. ``classification``: one class index,
            int64 [].
        channels: outputs of a model for it: the number of classes, 1 for depth, 3 for normals.
        largest: no value of a depth is above it.
    """

    word: Word
    channels: int
    largest: float = float("inf")


@dataclass(frozen=True)
class TaskData:
    """A multi-task dataset. A sample is ``(image, targets)``: float32 [3, H, W] in [0, 1], and one tensor per task.

    Attributes:
        name: as given to ``--dataset``.
        kinds: task name to what it predicts, in the order of the targets.
        train: samples to learn from.
        test: samples to report on.
        population: what identifies the data, for every record and table: numbers of samples and a hash.
        validation: samples to select by, where the dataset has a third split.
        notes: what else a reader of the results must know about the data.
    """

    name: str
    kinds: Mapping[str, Kind]
    train: "Samples"
    test: "Samples"
    population: str
    validation: "Samples | None" = None
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> "dict[str, Samples]":
        """The splits by name, in the order train, validation, test."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: samples for name, samples in splits.items() if samples is not None}


@dataclass(frozen=True)
class TaskDataSpec:
    """What is known about a multi-task dataset before it is read, and must match it when it is.

    Attributes:
        name: as given to ``--dataset``.
        kinds: see `TaskData`.
        counts: published numbers of samples by split.
        size: height and width of its images, pixels.
        load: reads it, given its folder (which the embedded ones do not need).
        folder: its folder in ``--data_dir``; empty for those that need none.
        synthetic: whether its images are made by a program.
        size_bytes: what it takes on disk, roughly; 0 where that is not known.
        licence: terms of use, as far as its authors state any.
        citation: what to cite.
        epochs: passes over the training samples when no number of steps is given.
        model: model when none is named.
        recommended: defaults that replace the suite's for this dataset, by hyperparameter; the batch size is there.
        fetch: downloads its files into its folder and returns what it is read from, where a command can do that.
    """

    name: str
    kinds: Mapping[str, Kind]
    counts: Mapping[str, int]
    size: tuple[int, int]
    load: Callable[[Path], TaskData]
    folder: str = ""
    synthetic: bool = False
    size_bytes: int = 0
    licence: str = ""
    citation: str = ""
    epochs: int = 200
    model: str = "mtan_segnet"
    recommended: Mapping[str, Any] = field(default_factory=lambda: {"batch_size": 8, "lr": 1e-4})
    fetch: Callable[[Path], Path] | None = None
    search: ClassVar[Mapping[str, Any]] = {}

    @property
    def held_out(self) -> tuple[str, ...]:
        """What is held out: the last split."""
        return self.environments[-1:]

    only_held_out = held_out

    def schedule(self, hparams: Mapping[str, Any]) -> tuple[int, int]:
        """Steps of its epochs, and of one, with the batch size of these hyperparameters."""
        batch_size = hparams.get("batch_size", self.recommended.get("batch_size", 0))
        steps = -(-self.counts["train"] // batch_size) if isinstance(batch_size, int) and batch_size > 0 else 1
        return self.epochs * steps, steps

    @property
    def environments(self) -> tuple[str, ...]:
        """Labels of the splits, of which the last one is held out."""
        return tuple(self.counts)

    def place(self, data_dir: Path | None) -> Path | None:
        """The folder that holds the dataset's folder."""
        return data_dir

    def read(self, data_dir: Path | None) -> TaskData:
        """Read it and check that it is what this says.

        Args:
            data_dir: the folder that holds its folder; the embedded ones need none.

        Raises:
            UserError: the folder is needed and not given, or the data are missing, wrong, or not what this says.
        """
        if data_dir is None and self.folder:
            raise UserError(
                f"{self.name} is read from disk: give the folder that holds {self.folder}/ with --data_dir."
            )
        data = self.load((data_dir or Path()) / self.folder)
        mistakes = [f"no {split} sample" for split, samples in data.splits.items() if not len(samples)]
        if tuple(data.kinds.items()) != tuple(self.kinds.items()):
            mistakes.append(
                f"its tasks should be {_listed(self.kinds)}, and those of the data are {_listed(data.kinds)}"
            )
        raise_all(mistakes, f"what the specification of {self.name} says of its data")
        return data


task_datasets: Registry[TaskDataSpec] = Registry("multi-task dataset", TaskDataSpec)


def population(counts: Mapping[str, int], parts: Iterable[bytes]) -> str:
    """What a dataset holds, for records and tables, e.g. ``160 train, 80 test, 4be14a09``.

    Args:
        counts: samples of each split.
        parts: what is hashed, in order; where one part ends matters.
    """
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(hashlib.sha256(part).digest())
    return ", ".join([*(f"{n:,} {split}" for split, n in counts.items()), hashed.hexdigest()[:8]])


def _listed(kinds: Mapping[str, Kind]) -> str:
    return ", ".join(f"{task} ({kind.word}, {kind.channels})" for task, kind in kinds.items())
