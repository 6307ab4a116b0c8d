"""The first sections of a report: what was run, what the comparison says, and the tables.

Like those of the other sections, these functions return data: for the page, which rounds them, and for `report.json`,
which holds them as they are. Accuracies are in percent and differences in points.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

import domainbed_sage
from domainbed_sage.core import strict_json
from domainbed_sage.results import render
from domainbed_sage.results.compare import NO_SPREAD, QUESTIONS, Comparison
from domainbed_sage.results.intervals import CONFIDENCE, error_of_these, half_width
from domainbed_sage.results.loaded import Loaded
from domainbed_sage.results.paired import Paired, Pairs
from domainbed_sage.results.plain import grid
from domainbed_sage.results.records import RunRecord
from domainbed_sage.results.report.sections import Data, Unavailable
from domainbed_sage.results.tables import AVERAGE, Table

FACTS = ("device", "model", "optimizer", "precision")  # of a run; `versions` has further ones


def state(loaded: Loaded, table: Table, failures: int) -> Data:
    """How far the sweep is, what it was run with, and whether that is the same for all runs."""
    seeds = sorted({run.trial_seed for run in loaded.records})
    return {
        "done": len(loaded.records),
        "failed": failures,
        "unfinished": len(loaded.unfinished),
        "missing": len(table.missing),
        "unreadable": len(loaded.unreadable),
        "selection": table.method.title,
        "trials": seeds,
        "datasets": [grid.title for grid in table.grids],
        "provenance": provenance(loaded.records),
        "package_version": domainbed_sage.__version__,
        "remarks": [*table.footer, *loaded.faults],
    }


def provenance(records: Iterable[RunRecord]) -> list[Data]:
    """Devices, versions and the like: each with its values, and how many runs have them, the most frequent first."""
    values: dict[str, Counter[str]] = {}
    for run in records:
        stated = {name: getattr(run, name) for name in FACTS} | strict_json.loads(run.versions or "{}")
        for name, value in stated.items():
            values.setdefault(name, Counter())[value or "not recorded"] += 1
    return [
        {"fact": name, "uniform": len(found) == 1, "values": [{"value": v, "runs": n} for v, n in found.most_common()]}
        for name, found in values.items()
    ]


def averages(table: Table, from_best: Comparison | None, against: Comparison | None) -> Data:
    """The averages; the best of each column, and which rows cannot be told from the highest average.

    That is the first question, on these datasets, adjusted for all rows by Holm's method.
    """
    data = grid(table.averages)
    p = {} if from_best is None else from_best.frame["these_p_holm"].to_dict()
    differences = {} if against is None else against.frame["difference"].to_dict()
    for row in data["rows"]:
        own = p.get(row["method"], math.nan)
        row["inseparable"] = None if math.isnan(own) else bool(own > 1 - CONFIDENCE)
        row["p_to_best"] = own
        row["difference"] = differences.get(row["method"], math.nan)
    answered = any(not math.isnan(value) for value in p.values())
    return data | {
        "best": from_best.reference if from_best else "",
        "reference": against.reference if against else "",
        "answered": answered,
        "caption": render.caption(table, table.averages),
    }


def datasets(table: Table) -> Data:
    """The table of every dataset."""
    return {"grids": [grid(own) | {"caption": render.caption(table, own)} for own in table.grids]}


def differences(against: Comparison | None, declared: Comparison | None) -> Data:
    """Every row's difference to the reference with both intervals; the highest first.

    p-values are those of the declared comparisons, adjusted for these; where none was declared, those of all rows,
    adjusted for all.
    """
    if against is None:
        raise Unavailable("There is nothing to compare: only one row has results.")
    named = declared or against
    adjusted = named.frame[[f"{question}_p_holm" for question in QUESTIONS]].to_dict("index")
    unadjusted = {f"{question}_p_holm": math.nan for question in QUESTIONS}
    numbers = against.frame.to_dict("index")
    rows: list[Data] = [
        {
            "method": method,
            "declared": declared is not None and method in adjusted,
            **{str(name): value for name, value in numbers[method].items()},
            **{str(name): value for name, value in adjusted.get(method, unadjusted).items()},
        }
        for method in highest(against)
    ]
    return {
        "reference": against.reference,
        "declared": [] if declared is None else [str(name) for name in declared.frame.index],
        "rows": rows,
        "adjusted_for": len(named.frame),
        "images": any(not math.isnan(row["images_low"]) for row in rows),
        "notes": condensed(against.notes, list(against.frame.index)),
    }


def by_dataset(table: Table, against: Comparison | None) -> Data:
    """Every row's difference to the reference on each dataset; the order of the rows is that of `differences`.

    The interval is for other seeds and splits of that dataset alone: Student's t over the trials.
    """
    names = [own.title for own in table.grids]
    if against is None or len(names) < 2:
        raise Unavailable("There is nothing to compare." if against is None else "There is only one dataset.")
    pairs = Pairs(table)
    rows = [
        {"method": method, "cells": _each(pairs.of(method, against.reference), names)} for method in highest(against)
    ]
    return {"reference": against.reference, "datasets": names, "rows": rows}


def _each(paired: Paired, names: Sequence[str]) -> list[Data]:
    by_trial = paired.by_trial[[paired.datasets.index(name) for name in names]]  # [datasets, trials]
    error = error_of_these(by_trial[:, None])
    half = np.where(error.se < NO_SPREAD, math.nan, half_width(error))
    trials = np.isfinite(by_trial).sum(axis=1)
    means = np.where(trials, np.nansum(by_trial, axis=1) / np.maximum(trials, 1), math.nan)
    return [
        {"difference": mean, "low": mean - width, "high": mean + width, "trials": number}
        for mean, width, number in zip(means.tolist(), half.tolist(), trials.tolist(), strict=True)
    ]


def highest(against: Comparison) -> list[str]:
    """The rows of a comparison by their difference, the highest first; those without one last."""
    differences = against.frame["difference"].to_dict()
    return sorted(map(str, differences), key=lambda name: (math.isnan(differences[name]), -differences[name]))


def condensed(notes: Iterable[str], methods: Sequence[str]) -> list[str]:
    """Notes of a comparison, which begin with the name of a row, so that each is said once for all rows it is about."""
    about: dict[str, list[str]] = {}
    for note in notes:
        method = max((name for name in methods if note.startswith(f"{name}: ")), key=len, default="")
        about.setdefault(note.removeprefix(f"{method}: ") if method else note, []).extend([method] if method else [])
    all_rows = len(methods) if len(methods) > 2 else math.inf
    subjects = ["All rows" if len(rows) >= all_rows else ", ".join(rows) for rows in about.values()]
    return [f"{subject}: {note}" if subject else note for subject, note in zip(subjects, about, strict=True)]


def heat(table: Table, reference: str) -> Data:
    """Difference to the reference in every held-out environment: mean over the trials that both have."""
    if not reference:
        raise Unavailable("There is no reference to take differences to: only one row has results.")
    own = table.results.set_index(["algorithm", "dataset", "env", "trial_seed"])["test_acc"] * 100
    cells = own.unstack("algorithm")
    points = cells.sub(cells[reference], axis=0).groupby(["dataset", "env"]).mean()
    groups = [{"dataset": g.title, "environments": [str(name) for name in g.cells.columns[:-1]]} for g in table.grids]
    keys = [(g["dataset"], env) for g in groups for env in range(len(g["environments"]))]
    points = points.reindex(pd.MultiIndex.from_tuples(keys))
    methods = [str(name) for name in table.averages.cells.index if name in points.columns and name != reference]
    rows = [{"method": name, "points": [float(value) for value in points[name]]} for name in methods]
    return {"reference": reference, "groups": groups, "rows": rows, "full": _full(points[methods])}


def _full(points: pd.DataFrame) -> float:
    """The difference from which on a colour is full: nine of ten differences are smaller. 1 point if all are 0."""
    sizes = np.abs(points.to_numpy(float))
    sizes = sizes[~np.isnan(sizes)]
    return float(np.quantile(sizes, 0.9)) if sizes.any() else 1.0


def selections(tables: Mapping[str, Table], rows: Sequence[str]) -> Data:
    """The overall average by every model selection method: what another rule would have reported."""
    shown = {name: own for name, own in tables.items() if len(own.results)}
    without = [f"{own.method.title}: it needs {own.method.needs}" for name, own in tables.items() if name not in shown]
    means = {name: own.averages.means[AVERAGE].to_dict() for name, own in shown.items()}
    return {
        "columns": [{"name": name, "title": own.method.title} for name, own in shown.items()],
        "rows": [{"method": row, "means": [means[name].get(row, math.nan) for name in shown]} for row in rows],
        "without": without,
    }


def validation(table: Table) -> Data:
    """Accuracy on the source domains' validation sets at the selected checkpoints beside the held-out one.

    For each row: both, means over the datasets of means over environments and trials, and their difference on each
    dataset. For each dataset: Spearman's rank correlation of the two over the rows.
    """
    both = table.results.groupby(["algorithm", "dataset"], sort=False)[["val_acc", "test_acc"]].mean() * 100
    names = [grid.title for grid in table.grids]
    validated, held_out = (both[name].unstack().reindex(columns=names) for name in ("val_acc", "test_acc"))
    gaps = validated - held_out
    rows = [
        {
            "method": str(name),
            "validation": float(validated.loc[name].mean(skipna=False)),
            "held_out": float(held_out.loc[name].mean(skipna=False)),
            "gaps": [float(value) for value in gaps.loc[name]],
        }
        for name in table.averages.cells.index
        if name in gaps.index
    ]
    ranks = [float(validated[name].rank().corr(held_out[name].rank())) if len(rows) > 2 else math.nan for name in names]
    return {"datasets": names, "rows": rows, "rank_correlations": ranks}
