"""NYU-v2 as parquet tables (``tanganke/nyuv2`` on Hugging Face, about 3 GB), written out in MTAN's layout.

A row holds ``image`` (float32 [3, H, W]), ``segmentation`` (int64 [H, W], -1 is ignored), ``depth`` (float32 [1, H, W])
and ``normal`` (float32 [3, H, W]); a column ``noise`` is not read. Nothing in a row says which of MTAN's files it is:
files are numbered in the tables' row order, and a note in every record says so.

The tables were not at hand when this was written; the columns are those that their page describes.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.core.files import explained_reading
from domainbed_sage.data import prepared
from domainbed_sage.data.acquire import disk
from domainbed_sage.data.multitask.facts import NYU, Layout
from domainbed_sage.data.multitask.mtan_layout import SPLITS
from domainbed_sage.data.multitask.samples import mistakes

if TYPE_CHECKING:
    from pyarrow import ChunkedArray

PATTERNS = {"train": ("train*.parquet",), "test": ("val*.parquet", "test*.parquet")}
ROWS = 8  # that are read at once
NOTE = "from parquet tables, numbered in their row order, which need not be that of MTAN's files"
TYPES = {"segmentation": np.int8}  # on disk; everything else stays float32


def write_out(
    tables: Path, root: Path, layout: Layout = NYU, *, progress: Callable[[Iterable[int]], Iterable[int]] = tqdm
) -> None:
    """Write the rows of all tables to ``<root>/{train,val}/{image,label,depth,normal}/<i>.npy``.

    The folder appears only when it is complete. For NYU-v2 it takes 4.7 GB.

    Args:
        tables: folder that holds the parquet files, at any depth: ``train*``, and ``val*`` or ``test*``.
        root: new folder.
        layout: what the dataset should be.
        progress: wraps the numbers of all rows.

    Raises:
        UserError: the folder exists; tables are missing, or have other columns, numbers of rows, or values.
        NoSpace: the disk is full.
    """
    if root.exists():
        raise UserError(f"{root} exists already. Use it as it is, or remove it to write it again.")
    paths = {split: _tables(tables, split) for split in SPLITS}
    raise_all([m for split in SPLITS for m in _count_mistakes(paths[split], split, layout)], f"the tables in {tables}")
    total = sum(layout.counts.values())
    disk.require(root.parent, total * _bytes(layout), f"Writing out {layout.name}")
    with disk.explained(root, "The tables are kept: free some space and start the same command again."):
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
            built, numbers = Path(temporary) / root.name, iter(progress(range(total)))
            for split, folder in SPLITS.items():
                for i, row in enumerate(_rows(paths[split], layout)):
                    next(numbers, None)
                    _write(row, built / folder, i, layout)
            prepared.update(built, [NOTE])
            built.rename(root)


def _tables(folder: Path, split: str) -> list[Path]:
    found = sorted(path for pattern in PATTERNS[split] for path in folder.rglob(pattern))
    if not found:
        raise UserError(f"{folder} should hold tables {' or '.join(PATTERNS[split])}. Found none.")
    return found


def _count_mistakes(paths: list[Path], split: str, layout: Layout) -> list[str]:
    """Whether the tables of a split have all columns, and together as many rows as there are samples."""
    files = [_opened(path) for path in paths]
    wanted, found = layout.counts[split], sum(file.metadata.num_rows for file in files)
    columns = ["image", *layout.kinds]
    wrong = [f"{split} should have {wanted} rows. Found {found}"] if found != wanted else []
    for path, file in zip(paths, files, strict=True):
        names = file.schema_arrow.names
        if lacking := [column for column in columns if column not in names]:
            wrong.append(f"{path.name} should have a column {', '.join(lacking)}. Found {', '.join(names)}")
    return wrong


def _opened(path: Path) -> Any:
    from pyarrow.parquet import ParquetFile  # slow to import

    with explained_reading(path), _undamaged(path):
        return ParquetFile(path)


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path} should be a parquet table. It is damaged ({error}): get it again.") from None


def _rows(paths: list[Path], layout: Layout) -> Iterator[tuple[Tensor, ...]]:
    """Image and targets of every row, checked."""
    height, width = layout.size
    shapes: dict[str, tuple[int, ...]] = {"image": (3, height, width)}
    for task, kind in layout.kinds.items():
        shapes[task] = (height, width) if kind.word == "segmentation" else (kind.channels, height, width)
    for path in paths:
        table, number = _opened(path), 0
        with _undamaged(path):
            for batch in table.iter_batches(ROWS, columns=list(shapes)):
                columns = [_dense(batch.column(name), shape, f"{name} of {path}") for name, shape in shapes.items()]
                for image, *targets in zip(*columns, strict=True):
                    raise_all(mistakes((image, tuple(targets)), layout.kinds), f"row {number} of {path}")
                    yield image, *targets
                    number += 1


def _dense(column: "ChunkedArray", shape: tuple[int, ...], where: str) -> Tensor:
    """A column of nested lists, all of one shape, as a tensor [rows, *shape]."""
    import pyarrow.compute as pc
    from pyarrow import types

    array: Any = column
    for length in shape:
        array = getattr(array, "storage", array)  # of the types that the library `datasets` defines
        if not types.is_nested(array.type) or set(pc.list_value_length(array).to_pylist()) - {length}:
            raise UserError(f"{where} should hold lists of the shape {list(shape)} in every row. Found {array.type}.")
        array = array.flatten()
    if array.null_count or not (types.is_floating(array.type) or types.is_integer(array.type)):
        raise UserError(f"{where} should hold numbers, none of them missing. Found {array.type}.")
    return torch.from_numpy(np.array(array.to_numpy(zero_copy_only=False)).reshape(len(column), *shape))


def _write(row: tuple[Tensor, ...], folder: Path, number: int, layout: Layout) -> None:
    for (place, shape), (task, value) in zip(
        layout.shapes.items(), zip(("image", *layout.kinds), row, strict=True), strict=True
    ):
        array = value.numpy() if len(shape) == 2 else value.permute(1, 2, 0).numpy()
        path = folder / place / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ascontiguousarray(array, dtype=TYPES.get(task, np.float32)), allow_pickle=False)


def _bytes(layout: Layout) -> int:
    """What one sample takes on disk, without the headers."""
    tasks = zip(layout.shapes.values(), ("image", *layout.kinds), strict=True)
    return sum(int(np.prod(shape)) * np.dtype(TYPES.get(task, np.float32)).itemsize for shape, task in tasks)
