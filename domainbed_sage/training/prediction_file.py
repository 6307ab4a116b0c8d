"""Predictions as a table on disk, one row for each image: CSV or parquet."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import atomic, explained, write_atomically
from domainbed_sage.training.assessment import SplitResult

ENDINGS = (".csv", ".parquet")


def check(path: Path) -> None:
    """Make sure, before anything is computed, that the file can be written; its folder is made.

    Raises:
        UserError: another ending, or the folder cannot be written to.
    """
    if path.suffix not in ENDINGS or path.is_dir():
        raise UserError(f"--predictions should be a file that ends in {' or '.join(ENDINGS)}. Found {path}.")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def frame(results: Sequence[SplitResult], classes: Sequence[str]) -> pd.DataFrame:
    """Environment (folder name), key of the image in it, split, label, prediction and its probability of each image.

    Where the logits were kept, a column ``logit_<class>`` for each class follows.
    """
    names = np.array(classes, dtype=object)
    return pd.concat([_rows(result, names) for result in results], ignore_index=True)


def write(path: Path, results: Sequence[SplitResult], classes: Sequence[str]) -> None:
    """Write the frame, all or nothing, in the format of the file's ending; see `check`."""
    table = frame(results, classes)
    if path.suffix == ".csv":
        write_atomically(path, table.to_csv(index=False, lineterminator="\n"))
    else:
        with atomic(path) as file:
            table.to_parquet(file, index=False)


def _rows(result: SplitResult, names: np.ndarray) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "environment": result.environment,
            "key": result.keys,
            "split": result.split,
            "label": names[result.labels],
            "prediction": names[result.predicted],
            "probability": result.probability,
        }
    )
    if result.logits is None:
        return rows
    return rows.join(pd.DataFrame(result.logits, columns=[f"logit_{name}" for name in names]))
