"""A cache of finished runs in one file, so that a results folder of 100,000 runs is parsed only once.

``<results>/records.parquet`` has one row for each run: the fields of its `RunRecord`, the arrays as lists. A run is
taken from there only if its ``results.jsonl`` and its ``done`` marker are unchanged since it was read. The
file is a copy: removing it costs one scan.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import atomic
from domainbed_sage.results.records import RESULTS, TEXTS, RunRecord

FILE = "records.parquet"
VERSION = "4"  # of what is read from a run, and of how it is kept; continues the count of version 0.1.0's .npz file
MIN_RUNS = 200  # runs; fewer are read as quickly without
log = logging.getLogger(__name__)

_VERSION_KEY = b"domainbed_sage.records"
_TEXT = pa.dictionary(pa.int32(), pa.string())
_TEXT_LISTS = ("environments",)
_NUMBERS = ("trial_seed", "hparams_seed", "planned_steps")
_SHARES = ("holdout_fraction",)
_NUMBER_LISTS = ("test_envs", "steps")
_MEASURED = ("in_acc", "out_acc", "loss")
_SCHEMA = pa.schema(
    [
        *(("name", pa.string()), ("torn", _TEXT)),
        *((name, pa.int64()) for name in ("size", "changed_ns", "done_ns")),
        *((name, _TEXT) for name in TEXTS),
        *((name, pa.int64()) for name in _NUMBERS),
        *((name, pa.float64()) for name in _SHARES),
        *((name, pa.list_(pa.string())) for name in _TEXT_LISTS),
        *((name, pa.list_(pa.int64())) for name in _NUMBER_LISTS),
        *((name, pa.list_(pa.float64())) for name in _MEASURED),
    ]
)


class Stamp(NamedTuple):
    """What identifies the state of a finished run when it was read; modification times in ns."""

    size: int  # of results.jsonl, bytes
    changed_ns: int
    done_ns: int


@dataclass(frozen=True)
class Cached:
    """A finished run, the files it was read from, and what the log should say of a torn last line."""

    stamp: Stamp
    record: RunRecord
    torn: str = ""


def stamp(run: Path) -> Stamp | None:
    """The stamp of a run's folder; None if the run is not finished.

    Raises:
        FileNotFoundError, NotADirectoryError: it is not the folder of a run.
    """
    results = (run / RESULTS).stat()
    try:
        return Stamp(results.st_size, results.st_mtime_ns, (run / "done").stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def read(folder: Path) -> dict[str, Cached]:
    """The runs in the cache, by name; none if there is no cache, or it is damaged or of another version."""
    path = folder / FILE
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False, page_checksum_verification=True) as file:
            if (file.schema_arrow.metadata or {}).get(_VERSION_KEY) != VERSION.encode():
                return {}
            table = file.read(use_threads=False)  # a process with Arrow's threads could not be forked safely
        if table.schema.remove_metadata() != _SCHEMA:
            raise ValueError("other columns than expected")
        return _unpack(table)
    except FileNotFoundError:
        return {}
    except (OSError, pa.ArrowException, ValueError, IndexError, MemoryError) as error:
        log.warning("%s is damaged (%s); reading every run again.", path, error)
        return {}


def write(folder: Path, runs: Mapping[str, Cached]) -> None:
    """Write the cache, if it is worth it; a folder that cannot be written to keeps none."""
    if len(runs) < MIN_RUNS:
        return
    try:
        table = _pack(list(runs.values())).replace_schema_metadata({_VERSION_KEY: VERSION.encode()})
        with atomic(folder / FILE) as file:
            pq.write_table(table, file, write_page_checksum=True, write_statistics=False)
    except (UserError, OSError, UnicodeEncodeError) as error:  # the last: a folder's name is not Unicode
        log.info("%s", error)


def _pack(runs: Sequence[Cached]) -> pa.Table:
    stamps = {name: [getattr(run.stamp, name) for run in runs] for name in Stamp._fields}
    columns: dict[str, Any] = {"torn": [run.torn for run in runs]} | stamps
    records = [run.record for run in runs]
    for name in ("name", *TEXTS, *_NUMBERS, *_SHARES, *_TEXT_LISTS):
        columns[name] = [getattr(record, name) for record in records]
    for name in (*_NUMBER_LISTS, *_MEASURED):
        columns[name] = _list_array([np.ravel(getattr(record, name)) for record in records])
    return pa.table([pa.array(columns[field.name], field.type) for field in _SCHEMA], schema=_SCHEMA)


def _list_array(arrays: Sequence[npt.NDArray[Any]]) -> pa.ListArray:
    ends = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, np.concatenate(arrays))


def _unpack(table: pa.Table) -> dict[str, Cached]:
    stamps = map(Stamp, *(table[name].to_pylist() for name in Stamp._fields))
    plain = {name: table[name].to_pylist() for name in ("name", *_NUMBERS, *_SHARES)}
    plain |= {name: _shared(table[name]) for name in ("torn", *TEXTS)}
    plain |= {name: _tuples(table[name]) for name in ("test_envs", *_TEXT_LISTS)}
    plain["steps"] = _split(table["steps"])
    plain["loss"] = _split(table["loss"])
    for name in ("in_acc", "out_acc"):
        plain[name] = [
            flat.reshape(len(steps), -1) for flat, steps in zip(_split(table[name]), plain["steps"], strict=True)
        ]
    torn = plain.pop("torn")
    rows = (dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True))
    return {row["name"]: Cached(own, RunRecord(**row), word) for own, row, word in zip(stamps, rows, torn, strict=True)}


def _shared(column: pa.ChunkedArray) -> list[str]:
    """Strings of a dictionary column; equal ones are one object in memory."""
    texts = column.unify_dictionaries().combine_chunks()
    values = texts.dictionary.to_pylist()
    return [values[at] for at in texts.indices.to_pylist()]


def _tuples(column: pa.ChunkedArray) -> list[tuple[Any, ...]]:
    """Lists of a column as tuples; equal ones are one object in memory."""
    seen: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    return [seen.setdefault(own, own) for own in map(tuple, column.to_pylist())]


def _split(column: pa.ChunkedArray) -> list[npt.NDArray[Any]]:
    """Lists of a column as arrays, which share their memory."""
    lists = column.combine_chunks()
    values, ends = lists.values.to_numpy(), lists.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise(ends)]
