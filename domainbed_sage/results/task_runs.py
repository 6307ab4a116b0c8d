"""The records of runs on several tasks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import regular
from domainbed_sage.results import packed, planned
from domainbed_sage.results.records import MULTI_TASK, RESULTS, parse_run

LAST = 10  # evaluations whose mean is reported, as the codes behind SAGE's Table 2 report the last ten epochs
DONE = "done"


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


@dataclass(frozen=True)
class TaskRuns:
    """The runs on several tasks of a results folder; nothing goes unmentioned.

    Attributes:
        runs: the finished ones.
        unfinished: names of those that are not.
        unreadable: why others cannot be read.
    """

    runs: tuple[TaskRun, ...]
    unfinished: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


@contextmanager
def _place(results: Path) -> Iterator[Path]:
    """Where the runs of a folder are: there, or unpacked, where it has nothing but a `runs.zip`."""
    if regular(results / packed.FILE) and not any((entry / RESULTS).exists() for entry in results.iterdir()):
        with packed.unpacked(results) as there:
            yield there
    else:
        yield results


def is_there(results: Path) -> bool:
    """Whether a results folder holds runs on several tasks: its first readable run is one.

    Raises:
        UserError: its `runs.zip` is damaged.
    """
    if not results.is_dir():
        return False
    with _place(results) as place:
        return _first_is_one(place)


def _first_is_one(results: Path) -> bool:
    for entry in sorted(results.iterdir()):
        if regular(entry / RESULTS):
            with (entry / RESULTS).open("rb") as file:
                first = file.readline()
            try:
                return bool(strict_json.loads(first)["args"].get("task") == MULTI_TASK)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return False


def load(results: Path) -> TaskRuns:
    """Read every run one level below a folder, or in its `runs.zip`.

    Raises:
        UserError: its plan, or its `runs.zip`, is damaged.
    """
    with _place(results) as place:
        return _load(place)


def _load(results: Path) -> TaskRuns:
    labels = planned.labels(results)
    runs, unfinished, unreadable = [], [], []
    for entry in sorted(entry for entry in results.iterdir() if regular(entry / RESULTS)):
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
    return TaskRuns(tuple(runs), tuple(unfinished), tuple(unreadable))


def _run(folder: Path, labels: Mapping[str, str]) -> TaskRun:
    records, _ = parse_run(folder / RESULTS)
    args, hparams = records[-1]["args"], records[-1]["hparams"]
    if args.get("task") != MULTI_TASK:
        raise UserError(f"{folder / RESULTS} is of another kind: a run on several tasks says task = {MULTI_TASK!r}.")
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
