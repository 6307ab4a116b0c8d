"""Sentences below a table: what is missing, whose weights were evaluated, what stands behind the numbers."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from domainbed_sage.results.expected import Key
from domainbed_sage.results.intervals import Spread
from domainbed_sage.results.records import RunRecord
from domainbed_sage.results.selection import Method

if TYPE_CHECKING:
    from domainbed_sage.results.tables import Grid


def missing(
    keys: Iterable[Key],
    records: Iterable[RunRecord],
    method: Method,
    names: Mapping[str, Sequence[str]],
    begun: Mapping[Key, str],
) -> list[str]:
    """Say in words what is missing, one sentence per algorithm, dataset and reason; `begun`: how far a run has come."""
    there = {run.key for run in records if run.single}
    needs = f"runs are there, but this selection needs {method.needs}"
    gaps: defaultdict[tuple[str, str, str], defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key in keys:
        dataset, algorithm, env, trial = key
        reason = needs if key in there else begun.get(key, "no run")
        gaps[dataset, algorithm, reason][names[dataset][env]].append(str(trial))
    sentences = []
    for (dataset, algorithm, reason), gap in gaps.items():
        by_trials: defaultdict[str, list[str]] = defaultdict(list)
        for held_out, trials in gap.items():
            by_trials[f"(trial{'s' * (len(trials) > 1)} {', '.join(trials)})"].append(held_out)
        where = "; ".join(f"{', '.join(names_out)} {when}" for when, names_out in by_trials.items())
        sentences.append(f"Missing: {algorithm} on {dataset}, held out {where}: {reason}.")
    return sentences


def endings(records: Iterable[RunRecord]) -> list[str]:
    """Which rows are of weights that a method ends in, and not of a selected checkpoint."""
    ending = sorted({run.label for run in records if run.evaluated})
    if not ending:
        return []
    return [f"Evaluated with the averaged weights that the method ends in, not at a checkpoint: {', '.join(ending)}."]


def remarks(results: pd.DataFrame, grids: Iterable["Grid"], spread: Spread) -> list[str]:
    """What a reader should know about the spread and the search behind the numbers."""
    sentences = []
    cells = [cell for grid in grids for cell in grid.cells.to_numpy().ravel()]
    if any(cell.trials == 1 for cell in cells):
        sentences.append(f"A number over one trial has no {spread.short}.")
    searched = results[results["settings"] > 1].groupby("algorithm")["settings"].agg(["min", "max"])
    if len(searched):
        counts = (f"{name} {low if low == high else f'{low}-{high}'}" for name, low, high in searched.itertuples())
        sentences.append(f"Selected among several hyperparameter settings per number: {', '.join(counts)}.")
    return sentences
