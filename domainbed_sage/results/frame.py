"""Runs as a tidy frame, and back: one row for each run, evaluation, environment and split."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.records import TEXTS, RunRecord, interned

SPLITS = ("in", "out")
_PER_RUN = {"run": "name", "trial": "trial_seed", "n_envs": "n_envs"} | {
    name: name for name in (*("hparams_seed", "planned_steps", "holdout_fraction"), *TEXTS)
}  # column to attribute of a `RunRecord`
COLUMNS = (
    *("dataset", "algorithm", "label", "environment", "held_out", "split", "step", "accuracy", "loss"),
    *("trial", "hparams_seed", "hparams", "model", "optimizer", "run"),
    *("env", "n_envs", "variant", "precision", "planned_steps", "holdout_fraction", "device", "versions", "evaluated"),
)


def to_frame(runs: Sequence[RunRecord], names: Mapping[str, Sequence[str]], labels: Sequence[str] = ()) -> pd.DataFrame:
    """The evaluations of runs, run by run, in the order of steps, environments and splits; see `load_results`.

    Args:
        runs: the runs.
        names: environment names of each dataset; the order of the datasets becomes that of the categories.
        labels: the same for the labels, as far as they are given. Environments are in alphabetical order.
    """
    pairs = [(run, env) for run in runs for env in range(run.n_envs)]
    run_of_row = np.repeat(np.arange(len(runs)), [len(SPLITS) * run.in_acc.size for run in runs])
    first_pair = np.cumsum([0, *(run.n_envs for run in runs)])
    pair_of_row = _joined(
        np.tile(np.repeat(np.arange(run.n_envs) + at, len(SPLITS)), len(run.steps))
        for at, run in zip(first_pair, runs, strict=False)
    )
    facts: dict[str, tuple[list[Any], npt.NDArray[np.int64]]] = {
        column: ([getattr(run, attribute) for run in runs], run_of_row) for column, attribute in _PER_RUN.items()
    }
    facts["env"] = [env for _, env in pairs], pair_of_row
    facts["environment"] = [names[run.dataset][env] for run, env in pairs], pair_of_row
    facts["held_out"] = [env in run.test_envs for run, env in pairs], pair_of_row
    facts["split"] = list(SPLITS), np.tile([0, 1], len(run_of_row) // 2)
    orders = {"dataset": names, "label": labels, "environment": sorted(itertools.chain(*names.values()))}
    columns: dict[str, Any] = {
        "step": _joined(np.repeat(run.steps, len(SPLITS) * run.n_envs) for run in runs),
        "loss": _joined(np.repeat(run.loss, len(SPLITS) * run.n_envs) for run in runs),
        "accuracy": _joined(np.stack([run.in_acc, run.out_acc], axis=-1).ravel() for run in runs),
    }
    for column, (values, of_row) in facts.items():
        is_text = isinstance(values[0], str)
        categories = list(dict.fromkeys([*orders.get(column, ()), *values])) if is_text else []
        columns[column] = (pd.Categorical(values, categories) if is_text else np.array(values))[of_row]
    return pd.DataFrame({column: columns[column] for column in COLUMNS})


def _joined(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(list(arrays))


def to_records(frame: pd.DataFrame) -> list[RunRecord]:
    """The runs of a frame of `load_results`, of which rows may have been removed: what is missing is NaN.

    Rows may be in any order, strings plain or categorical; further columns are ignored.

    Raises:
        UserError: columns are missing, rows contradict one another, or a run has lost an environment, without which
            the mean over its source environments would change.
    """
    run, first = _runs(frame)
    heads = frame.iloc[first]
    rows = frame[["step", "env", "held_out", "accuracy", "loss"]].assign(run=run, out=_is_out(frame["split"]))
    _check_rows(frame, rows, first)
    environments, test_envs = _environments(frame, rows, heads)
    shape = pd.MultiIndex.from_product([range(int(heads["n_envs"].max())), [False, True]])
    accuracy = rows.pivot(index=["run", "step"], columns=["env", "out"], values="accuracy").reindex(columns=shape)
    loss = rows.groupby(["run", "step"])["loss"].first()
    values = accuracy.to_numpy(np.float64).reshape(len(accuracy), -1, 2)
    of_run, steps = (accuracy.index.get_level_values(level).to_numpy(np.int64) for level in ("run", "step"))
    starts = np.searchsorted(of_run, np.arange(len(heads) + 1))
    records = []
    for at, head in enumerate(heads[list(_PER_RUN)].to_dict("records")):
        evaluations, envs = slice(starts[at], starts[at + 1]), slice(head.pop("n_envs"))
        facts: dict[str, Any] = {_PER_RUN[str(column)]: _fact(str(column), value) for column, value in head.items()}
        record = RunRecord(
            **facts,
            environments=environments[at],
            test_envs=test_envs[at],
            steps=steps[evaluations],
            in_acc=np.ascontiguousarray(values[evaluations, envs, 0]),
            out_acc=np.ascontiguousarray(values[evaluations, envs, 1]),
            loss=loss.to_numpy(np.float64)[evaluations],
        )
        records.append(interned(record))
    return records


def _fact(column: str, value: Any) -> str | int | float:
    if column == "holdout_fraction":
        return float(value)
    if column not in ("run", *TEXTS):
        return int(value)
    if pd.isna(value):  # as an empty string comes back from a CSV file
        return ""
    if isinstance(value, str):
        return value
    raise UserError(
        f"Column {column} of the frame should hold texts. Found {value!r}. "
        f"Read a CSV file back with dtype={{{column!r}: str}}, or keep the frame as parquet."
    )


def _runs(frame: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which run each row belongs to, [rows], numbered as they appear, and the first row of each, [runs]."""
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise UserError(f"The frame lacks {', '.join(missing)}. Use one of load_results, with all of its columns.")
    if frame.empty:
        raise UserError("The frame has no rows. Check how it was filtered.")
    run, _ = pd.factorize(frame["run"])
    return run.astype(np.int64), np.unique(run, return_index=True)[1]


def _is_out(split: "pd.Series[Any]") -> npt.NDArray[np.bool_]:
    splits = split.astype(object)
    if set(splits) != set(SPLITS):
        raise UserError(
            f"Column split of the frame should have both in and out. Found {', '.join(sorted(map(str, set(splits))))}. "
            "A checkpoint is selected on the out split, and its accuracy on the in split is reported."
        )
    return (splits == "out").to_numpy(bool)


def _check_rows(frame: pd.DataFrame, rows: pd.DataFrame, first: npt.NDArray[np.int64]) -> None:
    """One row for each evaluation, environment and split, and one value for each fact of a run."""
    doubled = rows.duplicated(["run", "step", "env", "out"]).to_numpy()
    if doubled.any():
        raise UserError(f"The frame has {doubled.sum()} rows twice, e.g. of run {_run_at(frame, doubled)}.")
    for column in _PER_RUN:
        codes, _ = pd.factorize(frame[column])
        other = codes != codes[first][rows["run"]]
        if other.any():
            raise UserError(f"The frame has more than one {column} in the rows of run {_run_at(frame, other)}.")


def _environments(
    frame: pd.DataFrame, rows: pd.DataFrame, heads: pd.DataFrame
) -> tuple[list[tuple[str, ...]], list[tuple[int, ...]]]:
    """For each run, the names of its environments and which are held out."""
    pairs = rows[["run", "env", "held_out"]].assign(name=frame["environment"].astype(object).to_numpy())
    by_run = pairs.drop_duplicates().sort_values(["run", "env"]).groupby("run")
    envs, names, held_out = (by_run[column].agg(list) for column in ("env", "name", "held_out"))
    for run, n_envs, found, flags in zip(heads["run"], heads["n_envs"], envs, held_out, strict=True):
        if found != list(range(n_envs)):
            raise UserError(
                f"Run {run} has {n_envs} environments, but the frame has its rows of environments {found}. "
                "Filter by whole runs or by steps; a table needs all environments."
            )
        if not any(flags):
            raise UserError(f"Run {run} holds out no environment: column held_out is False in all of its rows.")
    test_envs = [tuple(env for env, held in enumerate(flags) if held) for flags in held_out]
    return [tuple(map(str, own)) for own in names], test_envs


def _run_at(frame: pd.DataFrame, where: npt.NDArray[np.bool_]) -> str:
    return str(frame["run"].iloc[int(where.argmax())])
