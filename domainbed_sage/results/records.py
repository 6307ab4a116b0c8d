"""The records that a run leaves behind: `<run>/results.jsonl`, one JSON object per evaluation."""

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import facts
from domainbed_sage.results.planned import MOST_ENVS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RESULTS = "results.jsonl"
MULTI_TASK = "multi_task"  # in `args.task`; DomainBed's word is "domain_generalization"
ACCURACY = re.compile(r"env(0|[1-9][0-9]*)_(?:in|out)_acc")
_ARGS = ("dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed")
TEXTS = (
    *("dataset", "algorithm", "label", "hparams", "variant"),
    *("model", "optimizer", "precision", "device", "versions", "evaluated"),
)  # fields of a `RunRecord` that many runs share
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """One run: what it was, and its T evaluations of the data set's n environments.

    Attributes:
        name: name of the run directory.
        dataset: name of the data set.
        algorithm: name of the algorithm.
        label: its row of the table; the algorithm where the record has no label of its own.
        test_envs: held-out environments, ascending indices.
        trial_seed: number of the trial.
        hparams_seed: 0 = default hyperparameters, otherwise random ones.
        hparams: the hyperparameters as canonical JSON; equal strings mean equal hyperparameters.
        environments: environment names by index; empty where the record does not say (DomainBed's).
        steps: [T], ascending.
        in_acc: [T, n], accuracy in [0, 1] on the larger split of each environment; NaN where not evaluated.
        out_acc: [T, n], the same on the smaller (validation) split.
        loss: [T], mean training loss since the evaluation before; NaN where not recorded.
        variant: the population of images it ran on, where the data set has several, e.g. ``24330``.
        model: name of the model; like all that follow, empty where the record does not say (DomainBed's).
        optimizer: name of the base optimizer.
        precision: arithmetic of the forward and backward passes.
        planned_steps: training steps that it was to take; 0 where the record does not say.
        holdout_fraction: share of every environment in its out split; 0 where the record does not say.
        device: what it ran on, e.g. ``cpu``; ``a | b`` if it was continued on another device.
        versions: versions of what decides its numbers, and the commit of the checkout, as a canonical JSON object; a
            value is ``a | b`` if the run was continued with another version.
        evaluated: what the accuracies of the last evaluation belong to, where the method ends in other weights than
            those of the last step, e.g. ``average of steps 600 … 1200``; no other evaluation is then selected.
    """

    name: str
    dataset: str
    algorithm: str
    label: str
    test_envs: tuple[int, ...]
    trial_seed: int
    hparams_seed: int
    hparams: str
    environments: tuple[str, ...]
    steps: IntArray
    in_acc: FloatArray
    out_acc: FloatArray
    loss: FloatArray
    variant: str = ""
    model: str = ""
    optimizer: str = ""
    precision: str = ""
    planned_steps: int = 0
    holdout_fraction: float = 0.0
    device: str = ""
    versions: str = ""
    evaluated: str = ""

    @property
    def n_envs(self) -> int:
        """Number of environments of the data set."""
        return int(self.in_acc.shape[1])

    @property
    def key(self) -> tuple[str, str, int, int]:
        """The result that it is a setting of, see `expected.Key`; by the first environment that it holds out."""
        return self.dataset, self.label, self.test_envs[0], self.trial_seed

    @property
    def single(self) -> bool:
        """Whether the run holds out one environment only."""
        return len(self.test_envs) == 1


def read_run(path: Path) -> list[dict[str, Any]]:
    """Read one results file, a JSON object per line.

    A torn last line, as a killed process leaves it, is dropped with a warning in the log.

    Raises:
        UserError: another line is not a JSON object, or one has the same key twice; names the file and the line.
    """
    records, torn = parse_run(path)
    if torn:
        warn_of_torn_line(path, torn)
    return records


def parse_run(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The records of a results file, and what the log should say of a torn last line: nothing if it is whole.

    Raises: as `read_run`.
    """
    lines = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
    records = []
    for number, line in lines:
        try:
            record = strict_json.loads(line)
        except strict_json.Refused as error:
            raise UserError(f"{path}, line {number}, {error}: {line[:60]!r}.") from None
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif number == lines[-1][0]:
            return records, f"dropped the torn last line {number}: {line[:60]!r}"
        else:
            raise UserError(
                f"{path}, line {number}, is not a JSON object: {line[:60]!r}. Only the last line of a results file may "
                "be incomplete. Delete the run directory and run it again, or restore the file from a copy."
            )
    return records, ""


def warn_of_torn_line(path: Path, torn: str) -> None:
    """Log what `parse_run` found torn in a results file."""
    _log.warning("%s: %s", path, torn)


def run_record(folder: Path, lines: Sequence[Mapping[str, Any]]) -> RunRecord:
    """Turn the records of a run's folder into arrays.

    Raises:
        UserError: they do not belong to one run, lack what a record needs, or have something else in its place.
    """
    try:
        return interned(_record(folder, lines))
    except RecursionError:
        raise UserError(f"{folder / RESULTS}, record 1 or one that follows, is nested too deeply to be read.") from None


def _record(folder: Path, lines: Sequence[Mapping[str, Any]]) -> RunRecord:
    file, first = str(folder / RESULTS), lines[0]
    where = f"{file}, record 1"
    dataset, algorithm, test_envs, trial_seed, hparams_seed = _one_identity(file, lines)
    args = first["args"]
    if args.get("task") == MULTI_TASK:
        raise UserError(
            f"{file} is of a run on several tasks, which only `domainbed-sage table RESULTS_DIR` reads, in a folder of "
            "such runs."
        )
    n_envs = _n_envs(file, lines, test_envs)
    return RunRecord(
        name=folder.name,
        dataset=dataset,
        algorithm=algorithm,
        label=facts.text(where, args, "label") or algorithm,
        test_envs=test_envs,
        trial_seed=trial_seed,
        hparams_seed=hparams_seed,
        hparams=json.dumps(first.get("hparams", args.get("hparams")), sort_keys=True),
        environments=facts.texts(where, first, "environments"),
        steps=_steps(file, lines),
        in_acc=facts.accuracies(file, lines, [f"env{i}_in_acc" for i in range(n_envs)]),
        out_acc=facts.accuracies(file, lines, [f"env{i}_out_acc" for i in range(n_envs)]),
        loss=facts.numbers(file, lines, ["loss"])[:, 0],
        variant=facts.text(where, facts.mapping(where, first, "data"), "variant"),
        model=facts.text(where, args, "model"),
        optimizer=facts.text(where, args, "optimizer"),
        precision=facts.text(where, args, "precision"),
        planned_steps=facts.count(where, args, "steps"),
        holdout_fraction=facts.share(where, args, "holdout_fraction"),
        device=_changing(
            facts.text(f"{file}, record {number}", line, "device") for number, line in enumerate(lines, 1)
        ),
        versions=_versions(lines),
        evaluated=facts.text(f"{file}, record {len(lines)}", lines[-1], "evaluated"),
    )


def interned(record: RunRecord) -> RunRecord:
    """The same record; equal strings of many records are one object in memory."""
    texts: dict[str, Any] = {name: sys.intern(getattr(record, name)) for name in TEXTS}
    return replace(record, **texts, environments=tuple(map(sys.intern, record.environments)))


def _text(stated: Mapping[str, Any], key: str) -> str:
    """A fact as a string; empty where the record lacks it or has null."""
    value = stated.get(key)
    return "" if value is None else str(value)


def _changing(values: Iterable[str]) -> str:
    """The distinct values of a mostly constant fact, joined by ``|``."""
    return " | ".join(dict.fromkeys(filter(None, values)))


def _versions(lines: Sequence[Mapping[str, Any]]) -> str:
    """Canonical JSON of each line's `versions` and `commit`, in one; empty if no line has any."""
    stated: list[Mapping[str, Any]] = []
    for line in lines:
        versions = line.get("versions")
        own = {**(versions if isinstance(versions, Mapping) else {}), "commit": line.get("commit")}
        if not stated or own != stated[-1]:
            stated.append(own)
    names = sorted(set().union(*stated))
    merged = {name: text for name in names if (text := _changing(_text(own, name) for own in stated))}
    return json.dumps(merged) if merged else ""


def _one_identity(file: str, lines: Sequence[Mapping[str, Any]]) -> tuple[str, str, tuple[int, ...], int, int]:
    """What `_identity` finds in all records."""
    identity = _identity(f"{file}, record 1", lines[0])
    for number, line in enumerate(lines[1:], 2):
        if _identity(f"{file}, record {number}", line) != identity:
            raise UserError(
                f"{file} mixes two runs: record {number} has other arguments than record 1. Delete the run directory "
                "and run it again."
            )
    return identity


def _identity(where: str, line: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...], int, int]:
    """Dataset, algorithm, held-out environments, trial seed and hyperparameter seed of one record."""
    args = facts.mapping(where, line, "args")
    missing = [key for key in _ARGS if args.get(key) is None]
    if missing:
        raise UserError(f"{where}: 'args' should hold {', '.join(_ARGS)}. Missing: {', '.join(missing)}.")
    dataset, algorithm = (facts.text(where, args, key) for key in _ARGS[:2])
    test_envs = facts.environments(where, args["test_envs"])
    trial_seed, hparams_seed = (facts.integer(where, key, args[key]) for key in _ARGS[3:])
    return dataset, algorithm, test_envs, trial_seed, hparams_seed


def _n_envs(file: str, lines: Sequence[Mapping[str, Any]], test_envs: Sequence[int]) -> int:
    """Number of environments that the records have accuracies of, the held-out ones among them."""
    keys: set[str] = set().union(*lines)
    found = {match[1] for key in keys if (match := ACCURACY.fullmatch(key))}
    gap = next((at for at in range(len(found)) if str(at) not in found), None)
    if gap is None and len(found) <= MOST_ENVS:
        if test_envs and len(found) >= 2 and max(test_envs) < len(found):
            return len(found)
        raise UserError(
            f"{file} holds out environments {list(test_envs)} but has accuracies for {len(found)} environments. Each "
            "record needs env0_in_acc, env0_out_acc, env1_in_acc, ... of at least two environments."
        )
    odd = f"env{max(found, key=lambda digits: (len(digits), digits))[:20]}"
    lacking = "" if gap is None else f" and none of env{gap}"
    raise UserError(
        f"{file} has an accuracy of {odd}{lacking}. Environments should be numbered from 0 on without a gap; at most "
        f"{MOST_ENVS} are read."
    )


def _steps(file: str, lines: Sequence[Mapping[str, Any]]) -> IntArray:
    steps = facts.numbers(file, lines, ["step"])[:, 0]
    if np.isnan(steps).any():
        raise UserError(f"{file}: record {int(np.isnan(steps).argmax()) + 1} has no 'step'.")
    odd = np.flatnonzero((steps < 0) | (steps >= facts.LARGEST_STEP) | (steps != np.floor(steps)))
    if odd.size:
        at = int(odd[0])
        raise facts.wrong(f"{file}, record {at + 1}", "step", "a number of training steps", lines[at]["step"])
    back = np.flatnonzero(np.diff(steps) <= 0)
    if back.size:
        at = int(back[0])
        raise UserError(
            f"{file}: step {steps[at + 1]:.0f} follows step {steps[at]:.0f}, so two runs wrote to one "
            "file. Delete the run directory and run it again."
        )
    return steps.astype(np.int64)
