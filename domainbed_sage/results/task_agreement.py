"""Which runs on several tasks can share a table: one for each trial of a row, alike, and all on the same data."""

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
        UserError: two runs are of one row and trial, two of one row differ in more than their seeds, or two on one
            dataset saw different data.
    """
    of_trial: dict[tuple[Any, ...], TaskRun] = {}
    of_row: dict[tuple[str, str], TaskRun] = {}
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
        _check_alike(folder, of_row.setdefault((run.dataset, row), run), run, row)
        other = of_dataset.setdefault(run.dataset, run)
        if other.variant != run.variant:
            raise UserError(
                f"{folder / other.name} ran on {other.variant!r} of {run.dataset}, and {folder / run.name} on "
                f"{run.variant!r}. Their numbers cannot be averaged: move one kind to another folder."
            )


def _check_alike(folder: Path, first: TaskRun, run: TaskRun, row: str) -> None:
    """A setting that one of them does not have recorded agrees with everything."""
    for name in sorted(first.settings.keys() & run.settings.keys()):
        if first.settings[name] != run.settings[name]:
            raise UserError(
                f"{folder / first.name} has {name} {first.settings[name]!r}, and {folder / run.name} has {name} "
                f"{run.settings[name]!r}: both are of {row} on {run.dataset}, and trials of a row may differ only in "
                "seeds. Move one of them to another folder, or give them rows of their own in a sweep file."
            )
