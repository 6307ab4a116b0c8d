"""What a person sees of a run in training: one row for each evaluation. Everything else is in the run's log files."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from domainbed_sage.config import RunConfig
from domainbed_sage.training.evaluate import key

IN_FILES = {"in_files": True}  # as `extra` of a log message: for the log files only, see `cli.terminal`
HEAD = "    step  source val.  held-out  best val.      loss  s/step"


def row(record: Mapping[str, Any], config: RunConfig, source: float, best: float) -> str:
    """A row of the table under `HEAD`; accuracies in percent, ``-`` where nothing was measured.

    Args:
        record: of the evaluation.
        config: the run.
        source: mean accuracy on the out splits of the source environments, which selects the step.
        best: the highest of them so far.
    """
    held_out = [record.get(key(env, "in"), math.nan) for env in config.test_envs]
    shares = (source, sum(held_out) / len(held_out), best)
    step, loss, seconds = (record.get(name, math.nan) for name in ("step", "loss", "step_time"))
    a, b, c = (_written(100 * share, ".1f") for share in shares)
    return f"{step:>8,}  {a:>11}  {b:>8}  {c:>9}  {_written(loss, '.4g'):>8}  {_written(seconds, '.3g'):>6}"


def task_head(keys: Sequence[str]) -> str:
    """The head of a table with these metrics of several tasks."""
    return f"{'step':>8}" + "".join(f"  {_metric(key):>14}" for key in keys) + "      loss  s/step"


def task_row(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    """A row of the table under `task_head`."""
    numbers = "".join(f"  {_written(record.get(key, math.nan), '.4g'):>14}" for key in keys)
    loss, seconds = (record.get(name, math.nan) for name in ("loss", "step_time"))
    return f"{record['step']:>8,}{numbers}  {_written(loss, '.4g'):>8}  {_written(seconds, '.3g'):>6}"


def _metric(key: str) -> str:
    """The name of a metric in few characters."""
    text = key.removeprefix("test_")
    return text if len(text) <= 14 else f"{text[:8]}…{text[-5:]}"  # both the task and the metric


def _written(number: float, form: str) -> str:
    return "-" if math.isnan(number) else f"{number:{form}}"
