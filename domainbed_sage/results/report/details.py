"""The later sections of a report: curves, cost, failures, and every run."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from domainbed_sage.core import strict_json
from domainbed_sage.results import failures as causes
from domainbed_sage.results import paper as printed
from domainbed_sage.results import progress
from domainbed_sage.results.failures import Failure
from domainbed_sage.results.loaded import Loaded
from domainbed_sage.results.records import FloatArray, IntArray, RunRecord
from domainbed_sage.results.report import measures
from domainbed_sage.results.report.measures import Measured
from domainbed_sage.results.report.sections import Data, Unavailable
from domainbed_sage.results.tables import AVERAGE, Table

PERCENT = ("selected_so_far", "source_validation")  # measures of `progress` that are shares
LOSS = "loss"


def curves(records: Sequence[RunRecord], measured: Sequence[Measured], names: Mapping[str, Sequence[str]]) -> Data:
    """Curves of every dataset, method and held-out environment, means over trials at the steps of any evaluation.

    For each dataset, `lines` are by measure, method and environment; the measures are those of `progress`, accuracies
    in percent, then the scalars that the methods log. A step has no value unless all trials have one. `selected` has
    the steps of the checkpoints that are taken in the end.
    """
    frame = progress.of_runs(records, names)
    if frame.empty:
        raise Unavailable("There are no curves: no run holds out a single environment, or nothing can be selected.")
    further = {run.name: (run, own) for run, own in zip(records, measured, strict=True)}
    trials = _trials(frame)
    data = []
    for dataset in (name for name in names if name in trials):
        steps = np.unique(np.concatenate([trial.steps for own in trials[dataset].values() for trial in own]))
        lines: defaultdict[str, dict[str, list[Any]]] = defaultdict(dict)
        selected: dict[str, list[Any]] = {}
        empty = [None] * len(names[dataset])
        for (label, env), own in trials[dataset].items():
            for measure, values in _means(own, steps, further).items():
                lines[measure].setdefault(label, [*empty])[env] = values.tolist()
            selected.setdefault(label, [*empty])[env] = sorted({trial.selected_step for trial in own})
        data.append(
            {
                "name": dataset,
                "environments": list(names[dataset]),
                "steps": steps.tolist(),
                "lines": dict(lines),
                "selected": selected,
            }
        )
    return {"datasets": data, "percent": list(PERCENT)}


class _Trial(NamedTuple):
    """One trial of a curve: its steps, [T], its measures, each [T], the step selected in the end, and its run."""

    steps: IntArray
    measures: Mapping[str, FloatArray]
    selected_step: int
    run: str


def _trials(frame: pd.DataFrame) -> dict[str, dict[tuple[str, int], list[_Trial]]]:
    """The trials in a frame of `progress.of_runs`, where the rows of each stand together; by dataset, label and env."""
    runs = frame["run"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], runs[1:] != runs[:-1]]))
    columns = {name: frame[name].to_numpy(float) for name in progress.MEASURES}
    found: dict[str, dict[tuple[str, int], list[_Trial]]] = {}
    steps, selected = frame["step"].to_numpy(int), frame["selected_step"].to_numpy(float)
    heads = frame[["dataset", "label", "env"]].iloc[starts].itertuples(index=False, name=None)
    for (dataset, label, env), start, end in zip(heads, starts, [*starts[1:], len(runs)], strict=True):
        own = {name: values[start:end] * (100 if name in PERCENT else 1) for name, values in columns.items()}
        trial = _Trial(steps[start:end], own, int(selected[end - 1]), str(runs[start]))
        found.setdefault(str(dataset), {}).setdefault((str(label), int(env)), []).append(trial)
    return found


def _means(
    trials: Sequence[_Trial], steps: IntArray, further: Mapping[str, tuple[RunRecord, Measured]]
) -> dict[str, FloatArray]:
    """The mean over trials of each measure, at these steps; NaN where a trial has none."""
    means = {name: _mean([(own.steps, own.measures[name]) for own in trials], steps) for name in progress.MEASURES}
    runs = [further[trial.run] for trial in trials]
    for name in dict.fromkeys(name for _, own in runs for name in own):
        if name not in (measures.STEP_TIME, measures.MEMORY) and all(name in own for _, own in runs):
            means[name] = _mean([(run.steps, own[name]) for run, own in runs], steps)
    return means


def _mean(trials: Sequence[tuple[IntArray, FloatArray]], steps: IntArray) -> FloatArray:
    placed = np.full((len(trials), len(steps)), np.nan)
    for row, (at, values) in zip(placed, trials, strict=True):
        row[np.searchsorted(steps, at)] = values
    return np.asarray(placed.mean(axis=0))


def cost(table: Table, records: Sequence[RunRecord], measured: Sequence[Measured]) -> Data:
    """What each row took: hours of training on its devices, time per step, peak memory; evaluations are not in it."""
    if not any(measures.STEP_TIME in own for own in measured):
        raise Unavailable("The records do not say how long steps took.")
    means = table.averages.means[AVERAGE].to_dict()
    rows = []
    for method in table.averages.cells.index:
        own = [(run, other) for run, other in zip(records, measured, strict=True) if run.label == method]
        if own:
            seconds = sum(measures.device_seconds(run, other) for run, other in own)
            steps = sum(int(run.steps[-1]) + 1 for run, _ in own)
            peaks = [peak for _, other in own if not math.isnan(peak := measures.peak_memory_gb(other))]
            rows.append(
                {
                    "method": str(method),
                    "runs": len(own),
                    "hours": seconds / 3600,
                    "step_s": seconds / steps,
                    "memory_gb": max(peaks, default=math.nan),
                    "average": means[method],
                    "points_per_hour": means[method] / (seconds / 3600) if seconds else math.nan,
                }
            )
    return {"rows": rows, "hours": sum(row["hours"] for row in rows)}


def failed(failures: Sequence[Failure]) -> Data:
    """Failures by cause: how many, what to do, and the folders."""
    if not failures:
        raise Unavailable("No run has failed.")
    return {
        "causes": [
            {"cause": causes.cause(group[0]), "advice": causes.advice(group[0]), "runs": [run.name for run in group]}
            for group in causes.by_cause(failures)
        ]
    }


def runs(loaded: Loaded, table: Table, failures: Sequence[Failure], names: Mapping[str, Sequence[str]]) -> Data:
    """Every run, in the order of the tables, then those without a result: what it was, the checkpoint that the
    selection takes of it, its settings and its folder.
    """
    columns = ["dataset", "algorithm", "env", "trial_seed", "hparams_seed", "step", "val_acc", "test_acc"]
    chosen = {row[:5]: row[5:] for row in table.results[columns].itertuples(index=False, name=None)}
    numbers = {text: at for at, text in enumerate(dict.fromkeys(run.hparams for run in loaded.records), 1)}
    places = {label: at for at, label in enumerate(table.averages.cells.index)}
    datasets = {name: at for at, name in enumerate(names)}
    rows = []
    for run in sorted(loaded.records, key=lambda run: (datasets[run.dataset], places.get(run.label, -1))):
        key = (*run.key, run.hparams_seed)
        step, validation, held_out = chosen.get(key if run.single else (), (None, math.nan, math.nan))
        rows.append(
            {
                "state": "done",
                "dataset": run.dataset,
                "method": run.label,
                "held_out": [names[run.dataset][env] for env in run.test_envs],
                "trial": run.trial_seed,
                "step": step,
                "validation": 100 * validation,
                "accuracy": 100 * held_out,
                "setting": numbers[run.hparams],
                "folder": run.name,
            }
        )
    failed_ones = {failure.name for failure in failures}
    rest = [("failed", run.name, run.dataset, run.label) for run in failures]
    rest += [("unfinished", name, "", "") for name in loaded.unfinished if name not in failed_ones]
    rest += [("unreadable", name, "", "") for name, _ in loaded.unreadable]
    rows += [{"state": s, "dataset": dataset, "method": label, "folder": f} for s, f, dataset, label in rest]
    return {"rows": rows, **settings(loaded.records)}


def settings(records: Sequence[RunRecord]) -> Data:
    """The hyperparameters of the runs: what all have in common, and each setting's own, with the rows that use it."""
    used: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for run in records:
        used[run.hparams].append(run)
    values = [_mapping(text) for text in used]
    common = {key: value for key, value in values[0].items() if all(own.get(key) == value for own in values)}
    return {
        "common": common,
        "settings": [
            {
                "methods": list(dict.fromkeys(run.label for run in own)),
                "datasets": list(dict.fromkeys(run.dataset for run in own)),
                "runs": len(own),
                "values": {key: value for key, value in given.items() if key not in common},
            }
            for given, own in zip(values, used.values(), strict=True)
        ],
    }


def _mapping(text: str) -> dict[str, Any]:
    found = strict_json.loads(text)
    return found if isinstance(found, dict) else {}


def paper(table: Table, records: Sequence[RunRecord], wanted: bool) -> Data:
    """The paper's Table 1 beside our averages."""
    if not wanted:
        raise Unavailable("Not asked for: --paper shows the numbers of the paper's Table 1 beside these.")
    beside = printed.compare(table, records)
    shown = beside.strings("±", "–")
    rows = [{"method": str(name), "cells": list(cells)} for name, *cells in shown.itertuples()]
    return {"columns": [str(name) for name in shown.columns], "rows": rows, "notes": list(beside.notes)}
