"""What runs measured beside accuracies and loss: seconds per step, memory, and the scalars that a method logs."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from domainbed_sage.results.records import RESULTS, FloatArray, RunRecord

STEP_TIME, MEMORY = "step_time", "mem_gb"
_ELSEWHERE = re.compile(
    r"step|epoch|loss|env\d+_(in|out)_acc|args|hparams|environments|data|weights|versions|device|commit"
)

Measured = Mapping[str, FloatArray]  # name to [T]; NaN where an evaluation has no such number


def read(path: Path, run: RunRecord) -> Measured:
    """The further numbers in the records of a run, at the steps of its evaluations.

    They were read before, and found to be sound. So they are not checked again, which would take five times as long: a
    line that has become unreadable since counts as if it held none of these numbers.

    Args:
        path: the run's directory.
        run: what was read from it before.
    """
    file = path / RESULTS
    at_step = {int(step): at for at, step in enumerate(run.steps)}
    measured: dict[str, FloatArray] = {}
    for line in file.read_bytes().splitlines() if file.is_file() else ():
        record = _object(line)
        if (at := at_step.get(record.get("step", -1))) is None:
            continue
        for name in _further(tuple(record)):
            if type(record[name]) in (float, int):
                measured.setdefault(name, np.full(len(run.steps), np.nan))[at] = record[name]
    return measured


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = from_json(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=1000)
def _further(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if not _ELSEWHERE.fullmatch(name)]


def device_seconds(run: RunRecord, measured: Measured) -> float:
    """Seconds of training: mean seconds per step times steps, over all evaluations; NaN where one has no time."""
    if STEP_TIME not in measured:
        return float("nan")
    return float((measured[STEP_TIME] * np.diff(run.steps, prepend=-1)).sum())


def peak_memory_gb(measured: Measured) -> float:
    """Highest memory of the device in GB; NaN where none was recorded, as on a CPU."""
    values = measured.get(MEMORY, np.array([np.nan]))
    return float(np.nanmax(values, initial=-np.inf)) if (values > 0).any() else float("nan")
