"""The records of runs on several tasks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError, known
from domainbed_sage.core.files import regular
from domainbed_sage.data.multitask.specs import task_datasets
from domainbed_sage.results import packed, planned
from domainbed_sage.results.planned import PlannedRun
from domainbed_sage.results.records import MULTI_TASK, RESULTS, read_run

LAST = 10  # evaluations whose mean is reported, as the codes behind SAGE's Table 2 report the last ten epochs
DONE = "done"
SETTINGS = ("model", "optimizer", "steps", "checkpoint_freq", "precision")


@dataclass(frozen=True)
class TaskRun:
    """One finished run on several tasks.

    Attributes:
        name: of its directory.
        dataset: name of the dataset.
        label: its row of the table; without a plan, its algorithm and solver.
        trial_seed: number of the trial.
        only_task: the one task that it learned; empty if it learned all.
        metrics: the mean of each over the last `LAST` evaluations, or over all, if there are fewer.
        trivial: those of the per-pixel trivial predictor on the same data; none in the records of earlier versions.
        higher_is_better: the direction of each.
        evaluations: how many of them that mean is over.
        variant: what identifies its data.
        algorithm: its name.
        solver: its name.
        settings: what else the trials of a row have in common: model, steps and the like, as far as they are recorded,
            and all hyperparameters.
    """

    name: str
    dataset: str
    label: str
    trial_seed: int
    only_task: str
    metrics: Mapping[str, float]
    trivial: Mapping[str, float]
    higher_is_better: Mapping[str, bool]
    evaluations: int
    variant: str
    algorithm: str = ""
    solver: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskRuns:
    """The runs on several tasks of a results folder; nothing goes unmentioned.

    Attributes:
        runs: the finished ones.
        unfinished: names of those that are not.
        unreadable: why others cannot be read.
        missing: planned runs that have no record.
    """

    runs: tuple[TaskRun, ...]
    unfinished: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    missing: tuple[PlannedRun, ...] = ()


@contextmanager
def _place(results: Path) -> Iterator[Path]:
    """Where the runs of a folder are: there, or unpacked, where it has nothing but a `runs.zip`."""
    if regular(results / packed.FILE) and not any((entry / RESULTS).exists() for entry in results.iterdir()):
        with packed.unpacked(results) as there:
            yield there
    else:
        yield results


def kinds(results: Path) -> set[bool]:
    """Whether a folder holds runs on several tasks (True), other runs or nothing that can be read (False), or both.

    Of each dataset one run is opened, by the names of their folders, and more only where that cannot be read.

    Raises:
        UserError: its `runs.zip` is damaged.
    """
    if not results.is_dir():
        return {False}
    with _place(results) as place:
        return _kinds(place) or {False}


def _kinds(place: Path) -> set[bool]:
    found: dict[str, bool] = {}
    for entry in sorted(place.iterdir()):
        dataset, dash, _ = entry.name.partition("-")
        dataset *= bool(dash)  # names without one are not of this suite's runs: one of all of them is enough
        if dataset not in found and (kind := on_tasks(entry)) is not None:
            found[dataset] = kind
    return set(found.values())


def on_tasks(run: Path) -> bool | None:
    """Whether the first record in a run's folder says that it is one on several tasks; None if it cannot be read."""
    try:
        if not regular(run / RESULTS):
            return None
        with (run / RESULTS).open("rb") as file:
            return is_on_tasks(strict_json.loads(file.readline()))
    except (OSError, ValueError):
        return None


def is_on_tasks(record: Any) -> bool | None:
    """Whether a record says that it is of a run on several tasks; None if it is no record of a run."""
    args = record.get("args") if isinstance(record, Mapping) else None
    return args.get("task") == MULTI_TASK if isinstance(args, Mapping) else None


def load(results: Path) -> TaskRuns:
    """Read every run on several tasks one level below a folder, or in its `runs.zip`.

    Others are left to `folder.load_records`, and so is what cannot be read where there are others.

    Raises:
        UserError: its plan, or its `runs.zip`, is damaged.
    """
    with _place(results) as place:
        return _load(place)


def _load(results: Path) -> TaskRuns:
    plan = [run for one in planned.read(results).values() for run in one.runs]
    labels = {run.folder_name: run.label for run in plan}
    runs, unfinished, unreadable = [], [], []
    ours = (True,) if False in _kinds(results) else (True, None)
    for entry in sorted(entry for entry in results.iterdir() if regular(entry / RESULTS)):
        if on_tasks(entry) not in ours:
            continue
        if not regular(entry / DONE):
            unfinished.append(entry.name)
            continue
        try:
            runs.append(_run(entry, labels))
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, UserError) else f"{entry / RESULTS}: {error!r}"
            unreadable.append(reason)
    order = list(dict.fromkeys(labels.values()))
    runs.sort(key=lambda run: (order.index(run.label) if run.label in order else len(order), run.name))
    missing = (r for r in plan if r.dataset in task_datasets and not regular(results / r.folder_name / RESULTS))
    return TaskRuns(tuple(runs), tuple(unfinished), tuple(unreadable), tuple(missing))


def only(found: TaskRuns, rows: Sequence[str] | None, datasets: Sequence[str] | None) -> TaskRuns:
    """The part of these runs whose row and dataset are named; None: all. Runs for one task alone always stay.

    Raises:
        UserError: a row or a dataset is not there.
    """
    for what, wanted, there in (
        ("row", rows, {run.label for run in found.runs if not run.only_task}),
        ("dataset", datasets, {run.dataset for run in found.runs}),
    ):
        if missing := [name for name in wanted or () if name not in there]:
            raise UserError(f"The runs have no {what} {missing[0]!r}. {known(sorted(there))}.")
    kept = (
        run
        for run in found.runs
        if (rows is None or run.only_task or run.label in rows) and (datasets is None or run.dataset in datasets)
    )
    alone = {run.label for run in found.runs if run.only_task}
    lacking = (
        run
        for run in found.missing
        if (rows is None or run.label in alone.union(rows)) and (datasets is None or run.dataset in datasets)
    )
    return replace(found, runs=tuple(kept), missing=tuple(lacking))


def _run(folder: Path, labels: Mapping[str, str]) -> TaskRun:
    records = read_run(folder / RESULTS)
    if not records:
        raise _cut_short(folder, "it has no record")
    args, hparams, step = records[-1]["args"], records[-1]["hparams"], records[-1]["step"]
    if "steps" in args and step != args["steps"] - 1:  # records of other makes need not say it
        raise _cut_short(folder, f"its last record is of step {step}")
    better: dict[str, bool] = records[-1]["higher_is_better"]
    last, trivial = records[-LAST:], records[-1].get("trivial")
    metrics = {name: sum(_number(record, name) for record in last) / len(last) for name in better}
    return TaskRun(
        folder.name,
        args["dataset"],
        labels.get(folder.name, _row(args["algorithm"], hparams)),
        args["trial_seed"],
        hparams["only_task"],
        metrics,
        {name: _number(trivial, name) for name in better} if trivial else {},
        better,
        len(last),
        records[-1]["data"]["variant"],
        args["algorithm"],
        hparams["solver"],
        {name: args[name] for name in SETTINGS if name in args} | hparams,
    )


def _cut_short(folder: Path, found: str) -> UserError:
    return UserError(
        f"{folder / RESULTS} is of a finished run, but {found}. Delete the run directory and run it again, or restore "
        "the file from a copy."
    )


def _row(algorithm: str, hparams: Mapping[str, Any]) -> str:
    """The row of a run that no plan names, e.g. ``SAGE-FairGrad``."""
    return f"{algorithm}-{hparams['solver']}"


def _number(record: Mapping[str, Any], name: str) -> float:
    value = record[name]
    if value is None:  # of a mean over classes, one of which neither occurs nor is predicted
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{name} at step {record.get('step')} should be a number. Found {value!r}.")
    return float(value)
