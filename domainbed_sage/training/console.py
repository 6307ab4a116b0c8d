"""What a person sees of a run in training: one row for each evaluation. Everything else is in the run's log files."""

import math
from collections.abc import Mapping
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


def _written(number: float, form: str) -> str:
    return "-" if math.isnan(number) else f"{number:{form}}"
