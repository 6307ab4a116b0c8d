"""What was read from finished runs, in one file, so that a results folder of 100,000 runs is parsed once.

``<results>/records.npz`` holds every run's arrays end to end, and what each run was as JSON. A run is taken from there
only if size and modification time of its ``results.jsonl`` are those that were read. The file is a copy: removing it
costs one scan.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import atomic
from domainbed_sage.results.records import FloatArray, RunRecord

FILE = "records.npz"
VERSION = 1
WORTH = 200  # runs; fewer are read as quickly without
log = logging.getLogger(__name__)

Stamp = tuple[int, int]  # size in bytes and modification time in ns of results.jsonl


@dataclass(frozen=True)
class Cached:
    """A finished run and the file it was read from."""

    stamp: Stamp
    record: RunRecord


def read(folder: Path) -> dict[str, Cached]:
    """The runs in the cache, by name; none if there is no cache, or it is damaged or of another version."""
    try:
        with (folder / FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["version"] != VERSION:
                return {}
            return _unpack(facts, {name: arrays[name] for name in ("steps", "loss", "in_acc", "out_acc")})
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, ValueError, KeyError, IndexError, BadZipFile, TypeError) as error:
        log.warning("%s is damaged (%s); reading every run anew.", folder / FILE, error)
        return {}


def write(folder: Path, runs: Mapping[str, Cached]) -> None:
    """Write the cache, if it is worth it; a folder that cannot be written to keeps none."""
    if len(runs) < WORTH:
        return
    records = [cached.record for cached in runs.values()]
    hparams = {text: i for i, text in enumerate(dict.fromkeys(record.hparams for record in records))}
    environments = {names: i for i, names in enumerate(dict.fromkeys(record.environments for record in records))}
    rows = [
        [
            *(name, *cached.stamp, r.dataset, r.algorithm, r.test_envs, r.trial_seed, r.hparams_seed),
            *(hparams[r.hparams], environments[r.environments], len(r.steps), r.n_envs, r.variant),
        ]
        for name, cached in runs.items()
        for r in (cached.record,)
    ]
    facts = {"version": VERSION, "hparams": list(hparams), "environments": list(environments), "runs": rows}
    try:
        with atomic(folder / FILE) as file:
            np.savez(
                file,
                facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
                steps=np.concatenate([r.steps for r in records]),
                loss=np.concatenate([r.loss for r in records]),
                in_acc=_flat(r.in_acc for r in records),
                out_acc=_flat(r.out_acc for r in records),
            )
    except (UserError, OSError) as error:
        log.info("%s", error)


def _flat(arrays: Iterable[FloatArray]) -> FloatArray:
    return np.concatenate([array.ravel() for array in arrays])


def _unpack(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Cached]:
    found: dict[str, Cached] = {}
    environments = [tuple(names) for names in facts["environments"]]
    at = wide = 0
    for name, size, mtime, dataset, algorithm, test_envs, trial, seed, hparams, envs, n, width, variant in facts[
        "runs"
    ]:
        rows, cells = slice(at, at + n), slice(wide, wide + n * width)
        at, wide = rows.stop, cells.stop
        record = RunRecord(
            name=name,
            dataset=dataset,
            algorithm=algorithm,
            test_envs=tuple(test_envs),
            trial_seed=trial,
            hparams_seed=seed,
            hparams=facts["hparams"][hparams],
            environments=environments[envs],
            steps=arrays["steps"][rows],
            in_acc=arrays["in_acc"][cells].reshape(n, width),
            out_acc=arrays["out_acc"][cells].reshape(n, width),
            loss=arrays["loss"][rows],
            variant=variant,
        )
        found[name] = Cached((size, mtime), record)
    return found
