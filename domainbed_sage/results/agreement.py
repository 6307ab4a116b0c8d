"""Check which runs can share a table: only runs of one kind are averaged, or selected from."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.records import RunRecord

_OF_A_ROW = ("algorithm", "model", "optimizer", "precision")  # what a row of a sweep file may set
_ALIKE = {name: name for name in (*_OF_A_ROW, "holdout_fraction")} | {"steps": "planned_steps"}  # by name in a record


Place = Callable[[str], Path]


def check_agreement(runs: Sequence[RunRecord], place: Place = Path) -> None:
    """Check that runs can share a table.

    Args:
        runs: the runs.
        place: gives the folder of a run by its name, for the message; by default the bare name.

    Raises:
        UserError: two of one row differ in more than hyperparameters, seeds and environments, are the same run, or two
            on one dataset ran on different populations of images.
    """
    _check_alike(place, runs)
    _check_distinct(place, runs)
    _check_one_population(place, runs)


def _check_alike(place: Place, runs: Iterable[RunRecord]) -> None:
    """Check that runs of a row are alike; else the better of two models, say, would be selected like a setting.

    A fact that a record lacks agrees with everything.
    """
    first: dict[tuple[str, str, str], RunRecord] = {}
    for run in runs:
        for field, fact in _ALIKE.items():
            value = getattr(run, fact)
            other = first.setdefault((run.dataset, run.label, fact), run) if value else run
            if value != getattr(other, fact):
                raise UserError(
                    f"{place(other.name)} has {field} {getattr(other, fact)!r}, and {place(run.name)} has {field} "
                    f"{value!r}: both are runs of {run.label} on {run.dataset}, and runs of one row may differ only in "
                    f"hyperparameters, seeds and environments. {_remedy(run, fact)}"
                )


def _remedy(run: RunRecord, fact: str) -> str:
    if fact not in _OF_A_ROW:
        return "Move one set to another folder."
    names = {"algorithm": run.algorithm} | {fact: getattr(run, fact)}
    entry = ", ".join(f"{name}: {value}" for name, value in names.items())
    return (
        f"Give each a row of its own in the sweep file, e.g. `{run.label} {names[fact]}: {{{entry}}}`, or move one set "
        "to another folder."
    )


def _check_distinct(place: Place, runs: Iterable[RunRecord]) -> None:
    """Refuse two copies of a run, which DomainBed would silently average or choose from."""
    seen: dict[tuple[Any, ...], RunRecord] = {}
    for run in runs:
        key = (run.dataset, run.label, run.algorithm, run.test_envs, run.trial_seed, run.hparams_seed, run.hparams)
        other = seen.setdefault(key, run)
        if other is not run:
            raise UserError(
                f"{place(other.name)} and {place(run.name)} hold the same run: {run.algorithm} on {run.dataset}, "
                f"held-out environments {list(run.test_envs)}, trial {run.trial_seed}, hparams_seed "
                f"{run.hparams_seed}, equal hyperparameters. Move one of them out of the folder."
            )


def _check_one_population(place: Place, runs: Iterable[RunRecord]) -> None:
    first: dict[str, RunRecord] = {}
    for run in runs:
        other = first.setdefault(run.dataset, run)
        if run.variant != other.variant:
            raise UserError(
                f"{place(other.name)} ran on population {other.variant!r} of {run.dataset}, and {place(run.name)} "
                f"on {run.variant!r}. Their numbers cannot be averaged: move one kind to another folder."
            )
