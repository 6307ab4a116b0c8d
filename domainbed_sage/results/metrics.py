"""What runs log beside accuracies: loss, time of a step, memory, and the metrics of each algorithm."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from domainbed_sage.results.records import ACCURACY, RESULTS, parse_run


def logged(runs: Iterable[Path]) -> pd.DataFrame:
    """Every number at the top level of the records of these runs, but no accuracies; a row for each evaluation.

    Columns: run (name of its folder), step, and each number by its name in the records, e.g. ``loss``, ``epoch``,
    ``step_time`` (seconds), ``mem_gb`` (gigabytes), ``agreement``; NaN where a record lacks it. The files are parsed
    anew each time, about a millisecond a run.

    Args:
        runs: run directories, see `Loaded.path`.

    Raises:
        UserError: the records of one cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        for line in parse_run(run / RESULTS)[0]:
            numbers = {key: value for key, value in line.items() if type(value) in (int, float)}
            rows.append({"run": run.name} | {key: numbers[key] for key in numbers if not ACCURACY.fullmatch(key)})
    return pd.DataFrame(rows, columns=list(dict.fromkeys(["run", "step", *(key for row in rows for key in row)])))
