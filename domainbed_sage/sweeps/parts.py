"""The parts of a sweep file: settings of a dataset, and rows of the tables."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from domainbed_sage.config import TRAINING_PRECISIONS
from domainbed_sage.core.ranges import read_ranges
from domainbed_sage.data import own
from domainbed_sage.geometry.products import Precision


def _label(text: str) -> str:
    if not 0 < len(text) <= 64 or not text.isprintable() or text != text.strip() or set(text) & set("/\\"):
        raise ValueError("a label should be up to 64 printable characters, without / and \\ and blanks at its ends")
    return text


def _dataset(text: str) -> str:
    if text.startswith(own.SCHEME):
        path = text.removeprefix(own.SCHEME)
        raise ValueError(f"a folder of images has a name in a sweep file: `{Path(path).name}: {{folder: {path}}}`")
    return text


PositiveInt = Annotated[int, Field(ge=1)]
Label = Annotated[str, AfterValidator(_label)]
DatasetName = Annotated[str, AfterValidator(_dataset)]
OneOfPrecisions = Annotated[Precision, Field(description=f"one of {', '.join(TRAINING_PRECISIONS)}")]
HParams = Annotated[dict[str, Any], Field(description="a mapping from hyperparameters to values")]
Ranges = Annotated[
    dict[str, Any], AfterValidator(read_ranges), Field(description="a mapping from hyperparameters to ranges")
]


class Schedule(BaseModel):
    """Settings that may differ between datasets; `None` takes the value for all, or the dataset's own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    steps: PositiveInt | None = None
    checkpoint_freq: PositiveInt | None = None
    hparams: HParams = {}
    search: Ranges = {}


class Data(Schedule):
    """Settings of one dataset.

    Attributes:
        folder: a folder of images that is this dataset, see `data.own`; a relative one is in the folder of the
            datasets or, where none is given, beside the sweep file.
    """

    folder: Annotated[str, Field(pattern=r"^[^\x00]+$", description="the path of a folder")] | None = None


class Row(BaseModel):
    """One row of the tables: an algorithm, with hyperparameters of its own as further entries.

    Attributes:
        algorithm: its registered name; by default the label of the row.
        model, optimizer, precision: in place of those of the dataset and the sweep.
        search: random-search ranges of this row, see `Sweep`.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    algorithm: str | None = None
    model: str | None = None
    optimizer: str | None = None
    precision: OneOfPrecisions | None = None
    search: Ranges = {}

    @property
    def hparams(self) -> dict[str, Any]:
        """The hyperparameters that are set for this row."""
        return self.model_extra or {}
