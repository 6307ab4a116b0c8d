"""Which runs on several tasks can share a table: one for each trial of a row, all on the same data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.task_runs import TaskRun


def check_agreement(runs: Iterable[TaskRun], folder: Path) -> None:
    """Check that the numbers of runs can be averaged over trials.

    Args:
        runs: the runs.
        folder: what they are in, for the message.

    Raises:
        UserError: two runs are of one row and trial, or two on one dataset saw different data.
    """
    of_trial: dict[tuple[Any, ...], TaskRun] = {}
    of_dataset: dict[str, TaskRun] = {}
    for run in runs:
        row = f"the row of {run.only_task} alone" if run.only_task else f"the row {run.label}"
        other = of_trial.setdefault((run.dataset, row, run.trial_seed), run)
        if other is not run:
            raise UserError(
                f"{folder / other.name} and {folder / run.name} are both trial {run.trial_seed} of {row} on "
                f"{run.dataset}. A row has one run for each trial, since none is selected: move one of them to another "
                "folder, or give them rows of their own in a sweep file."
            )
        other = of_dataset.setdefault(run.dataset, run)
        if other.variant != run.variant:
            raise UserError(
                f"{folder / other.name} ran on {other.variant!r} of {run.dataset}, and {folder / run.name} on "
                f"{run.variant!r}. Their numbers cannot be averaged: move one kind to another folder."
            )
