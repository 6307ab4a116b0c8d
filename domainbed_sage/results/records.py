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

from domainbed_sage.core.errors import UserError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RESULTS = "results.jsonl"
_ACCURACY = re.compile(r"env(\d+)_(?:in|out)_acc")
_ARGS = ("dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed")
TEXTS = (
    *("dataset", "algorithm", "label", "hparams", "variant"),
    *("model", "optimizer", "precision", "device", "versions"),
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
        device: what it ran on, e.g. ``cpu``; ``a | b`` if it was continued on another device.
        versions: versions of what decides its numbers, and the commit of the checkout, as a canonical JSON object; a
            value is ``a | b`` if the run was continued with another version.
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
    device: str = ""
    versions: str = ""

    @property
    def n_envs(self) -> int:
        """Number of environments of the data set."""
        return int(self.in_acc.shape[1])

    @property
    def single(self) -> bool:
        """Whether the run holds out one environment only."""
        return len(self.test_envs) == 1


def read_run(path: Path) -> list[dict[str, Any]]:
    """Read one results file, a JSON object per line.

    A torn last line, as a killed process leaves it, is dropped with a warning in the log.

    Raises:
        UserError: another line is not a JSON object; names the file and the line.
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
            record = json.loads(line)
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
        UserError: they do not belong to one run, or lack what a record needs.
    """
    first = lines[0]
    args = first["args"]
    identity = _identity(folder, 1, first)
    for number, line in enumerate(lines[1:], 2):
        if _identity(folder, number, line) != identity:
            raise UserError(
                f"{folder / RESULTS} mixes two runs: record {number} has other arguments than record 1. "
                "Delete the run directory and run it again."
            )
    indices = [int(match[1]) for key in first if (match := _ACCURACY.fullmatch(key))]
    n_envs = max(indices, default=-1) + 1
    dataset, algorithm, test_envs, trial_seed, hparams_seed = identity
    if not test_envs or n_envs < 2 or max(test_envs) >= n_envs:
        raise UserError(
            f"{folder / RESULTS} holds out environments {list(test_envs)} but has accuracies for {n_envs} "
            "environments. Each record needs env0_in_acc, env0_out_acc, env1_in_acc, ... of at least two environments."
        )
    record = RunRecord(
        name=folder.name,
        dataset=dataset,
        algorithm=algorithm,
        label=_text(args, "label") or algorithm,
        test_envs=test_envs,
        trial_seed=trial_seed,
        hparams_seed=hparams_seed,
        hparams=json.dumps(first.get("hparams", args.get("hparams")), sort_keys=True),
        environments=tuple(str(name) for name in first.get("environments", ())),
        steps=_steps(folder, lines),
        in_acc=_numbers(folder, lines, [f"env{i}_in_acc" for i in range(n_envs)]),
        out_acc=_numbers(folder, lines, [f"env{i}_out_acc" for i in range(n_envs)]),
        loss=_numbers(folder, lines, ["loss"])[:, 0],
        variant=str(first.get("data", {}).get("variant", "")),
        model=_text(args, "model"),
        optimizer=_text(args, "optimizer"),
        precision=_text(args, "precision"),
        device=_changing(_text(line, "device") for line in lines),
        versions=_versions(lines),
    )
    return interned(record)


def interned(record: RunRecord) -> RunRecord:
    """The same record; equal texts of many records are one object in memory."""
    texts: dict[str, Any] = {name: sys.intern(getattr(record, name)) for name in TEXTS}
    return replace(record, **texts, environments=tuple(map(sys.intern, record.environments)))


def _text(facts: Mapping[str, Any], key: str) -> str:
    """A fact that a record may lack, or have as null."""
    value = facts.get(key)
    return "" if value is None else str(value)


def _changing(values: Iterable[str]) -> str:
    """The distinct values of what is mostly constant."""
    return " | ".join(dict.fromkeys(filter(None, values)))


def _versions(lines: Sequence[Mapping[str, Any]]) -> str:
    """Canonical JSON of each line's `versions` and `commit`, in one; empty if no line has any."""
    stated: list[Mapping[str, Any]] = []
    for line in lines:
        versions = line.get("versions")
        facts = {**(versions if isinstance(versions, Mapping) else {}), "commit": line.get("commit")}
        if not stated or facts != stated[-1]:
            stated.append(facts)
    names = sorted(set().union(*stated))
    merged = {name: text for name in names if (text := _changing(_text(facts, name) for facts in stated))}
    return json.dumps(merged) if merged else ""


def _identity(folder: Path, number: int, line: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...], int, int]:
    """Dataset, algorithm, held-out environments, trial seed and hyperparameter seed of one record."""
    try:
        args = line["args"]
        dataset, algorithm, test_envs, trial_seed, hparams_seed = (args[key] for key in _ARGS)
        return str(dataset), str(algorithm), tuple(sorted(map(int, test_envs))), int(trial_seed), int(hparams_seed)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / RESULTS}, record {number}: 'args' should hold {', '.join(_ARGS)}; "
            f"reading them failed with {type(error).__name__}: {error}."
        ) from error


def _steps(folder: Path, lines: Sequence[Mapping[str, Any]]) -> IntArray:
    steps = _numbers(folder, lines, ["step"])[:, 0]
    if np.isnan(steps).any():
        raise UserError(f"{folder / RESULTS}: record {int(np.isnan(steps).argmax()) + 1} has no 'step'.")
    back = np.flatnonzero(np.diff(steps) <= 0)
    if back.size:
        at = int(back[0])
        raise UserError(
            f"{folder / RESULTS}: step {steps[at + 1]:.0f} follows step {steps[at]:.0f}, so two runs wrote to one "
            "file. Delete the run directory and run it again."
        )
    return steps.astype(np.int64)


def _numbers(folder: Path, lines: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> FloatArray:
    """Values of `keys` in every record, [records, keys]; NaN where a record lacks one, or has null."""
    try:
        return np.array([[line.get(key) for key in keys] for line in lines], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / RESULTS}: one of {', '.join(keys)} is not a number ({error}).") from error
