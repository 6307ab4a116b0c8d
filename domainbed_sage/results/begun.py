"""Planned runs that are not finished: which results wait for them, and how far they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.expected import Key
from domainbed_sage.results.failures import read_note
from domainbed_sage.results.planned import PlannedRun
from domainbed_sage.results.records import RESULTS, RunRecord, parse_run

PROGRESS = "progress.json"  # the note that a run leaves while it trains


@dataclass(frozen=True)
class Begun:
    """A run that is not finished.

    Attributes:
        name: of its directory.
        key: the result that waits for it.
        stands: how far it is, in words.
    """

    name: str
    key: Key
    stands: str


def waiting(runs: Iterable[PlannedRun], records: Iterable[RunRecord], folder: Path) -> tuple[Begun, ...]:
    """Those of the unfinished runs that hold out one environment and whose result no other run gives.

    Args:
        runs: unfinished runs of a plan.
        records: the runs that are finished.
        folder: of the results.
    """
    there = {run.key for run in records if run.single}
    found = []
    for run in runs:
        if len(run.test_envs) == 1 and run.key not in there:
            stands = f"not finished (step {_reached(folder / run.folder_name):,} of {run.steps:,})"
            found.append(Begun(run.folder_name, run.key, stands))
    return tuple(found)


def _reached(run: Path) -> int:
    """Steps that are taken for certain: by the last record, or by the note of its progress."""
    return max(_whole(read_note(run / PROGRESS).get("step")), _whole(_last(run)) + 1)


def _last(run: Path) -> Any:
    try:
        records, _ = parse_run(run / RESULTS)
    except (OSError, UserError):
        return -1
    return records[-1].get("step") if records else -1


def _whole(value: Any) -> int:
    return value if type(value) is int else -1
