"""Functions for notebooks: the results of a folder as a frame, the benchmark's table, and paired comparisons."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from domainbed_sage.core import strict_json
from domainbed_sage.results import compare as comparisons
from domainbed_sage.results import tables
from domainbed_sage.results.agreement import check_agreement
from domainbed_sage.results.compare import Comparison
from domainbed_sage.results.expected import Key, environment_names
from domainbed_sage.results.frame import to_frame, to_records
from domainbed_sage.results.joined import load_folders
from domainbed_sage.results.loaded import Loaded, populations
from domainbed_sage.results.records import RunRecord
from domainbed_sage.results.tables import Table

_log = logging.getLogger(__name__)


Folders = Path | str | Sequence[Path | str]


def load_results(folder: Folders, *, include_unfinished: bool = False) -> pd.DataFrame:
    """Read every run of a results folder, or of several, into one tidy frame.

    One row for each run, evaluation, environment and split:

    ==================  ===========================================================================================
    dataset, algorithm  their names
    label               row of the run in tables; the algorithm, unless its entry in the sweep has a label of its own
    environment         name of the environment that was evaluated
    held_out            whether it is held out in this run; otherwise it is a source domain
    split               ``in`` (the larger) or ``out`` (the validation split)
    step                training steps at this evaluation
    accuracy            in [0, 1]; NaN where it was not evaluated
    loss                mean training loss since the evaluation before
    trial               number of the trial
    hparams_seed        0: default hyperparameters, otherwise random ones
    hparams             all hyperparameters as JSON; equal strings mean equal hyperparameters
    model, optimizer    their names; empty where the records do not say, as DomainBed's do not
    run                 name of the run's folder
    env, n_envs         index of the environment, and the dataset's number of environments
    variant             the population of images, where a dataset has several
    precision, device   arithmetic, and what it ran on
    planned_steps       training steps that the run was to take; 0 where the records do not say
    holdout_fraction    share of every environment in its out split; 0 where the records do not say
    versions            versions of the software, as a JSON object
    evaluated           what the last evaluation is of, where a method ends in weights of its own, as SWAD's average
    ==================  ===========================================================================================

    Strings are categorical, to keep a frame of many runs small. Runs that were read before come from a cache in the
    folder, as long as they have not changed. Unreadable runs are left out with a warning in the log.

    Args:
        folder: results folder of a sweep, DomainBed's or ours, or a list of them, see `load_folders`.
        include_unfinished: also read runs that are not finished.

    Raises:
        UserError: no such folder, no readable run in it, or runs that contradict one another.

    Example: accuracy on each held-out environment of one dataset, at the last step, mean over trials.

        >>> frame = load_results("results/demo")
        >>> last = frame[(frame["dataset"] == "PACS") & (frame["step"] == frame["step"].max())]
        >>> rows = last[last["held_out"] & (last["split"] == "in")]
        >>> rows.groupby(["label", "environment"], observed=True)["accuracy"].mean().unstack().round(2)
        environment     A     C     P     S
        label
        ERM          0.50  0.60  0.70  0.80
        SAGE         0.52  0.62  0.72  0.82
    """
    loaded = _load(folder, include_unfinished)
    names = environment_names(loaded.records, loaded.planned or (), None)
    expected = loaded.expected()
    there = {run.key for run in loaded.records if run.single}
    frame = to_frame(loaded.records, names, list(dict.fromkeys(key[1] for key in expected)))
    missing = [key for key in dict.fromkeys(expected) if key not in there]
    frame.attrs["missing"] = strict_json.dumps(missing)  # a string: pandas copies it with every part of the frame
    frame.attrs["left_out"] = strict_json.dumps([*loaded.remarks, *loaded.left_out()])
    frame.attrs["folders"] = strict_json.dumps([str(path.absolute()) for path in _paths(folder)])
    return frame


def table(
    results: pd.DataFrame | Folders,
    selection: str = "training-domain",
    *,
    include_unfinished: bool = False,
    interval: bool = False,
) -> Table:
    """Select checkpoints and hyperparameters, and make the benchmark's tables.

    The frame may be a part of one that `load_results` gave: some of its datasets, labels, trials, or the evaluations up
    to a step. What was missing when it was loaded stays missing for the datasets and labels that are still in it.

    Args:
        results: a frame of `load_results`, or a results folder, or a list of folders.
        selection: model selection method: ``training-domain``, ``leave-one-domain-out``, ``oracle`` or ``last``.
        include_unfinished: also use the runs of a folder that are not finished.
        interval: ± is the half-width of a 95% confidence interval over trials, and not DomainBed's standard error.

    Returns:
        The tables: a notebook shows them; `.averages` has a row for each label and a column for each dataset,
        `.grids` the table of each dataset, and `.to_text()`, `.to_markdown()` and `.to_latex()` write them.

    Raises:
        UserError: unknown method, or as `load_results`.

    Example:

        >>> frame = load_results("results/demo")
        >>> table(frame[frame["dataset"] != "VLCS"]).averages
        Averages
                           PACS    OfficeHome   Avg
        Algorithm
        ERM        65.1 +/- 0.2  65.1 +/- 0.2  65.1
        SAGE       67.0 +/- 0.1  68.9 +/- 0.2  67.9
    """
    if not isinstance(results, pd.DataFrame):
        loaded = _load(results, include_unfinished)
        given: dict[str, Any] = {"notes": loaded.notes(begun_told=True), "begun": loaded.begun}
        return tables.build(loaded.records, selection, expected=loaded.planned, interval=interval, **given)
    runs = to_records(results)
    check_agreement(runs)
    notes = [*populations(runs), *strict_json.loads(results.attrs.get("left_out", "[]"))]
    return tables.build(runs, selection, expected=_expected(results, runs), notes=notes, interval=interval)


def compare(
    results: pd.DataFrame | Folders,
    reference: str = "ERM",
    methods: Sequence[str] = ("SAGE",),
    selection: str = "training-domain",
) -> Comparison:
    """Compare methods with a reference, paired by dataset, held-out environment and trial.

    It answers two separate questions: whether a method is better on *these* datasets, beyond the chance of seeds and
    splits; and whether it would be better on other *datasets like these*. See `Comparison` for both tests.

    Args:
        results: a frame of `load_results`, or a part of it, or a results folder or several; only finished runs count.
        reference: label of the row to compare with.
        methods: labels of the rows to compare. Declare them before you look at the results: p-values are adjusted for
            the number of methods listed here.
        selection: model selection method, see `table`.

    Returns:
        The comparison: print it, or take its `.frame`, its `.sentence()` for a paper, or `.to_latex()`,
        `.to_markdown()`, `.to_csv()`, `.to_json()`.

    Raises:
        UserError: a method or the reference is not in the results, or as `table`.

    Example:

        >>> comparison = compare("results/demo", reference="ERM", methods=["SAGE"])
        >>> print(comparison)
        -------- Comparison with ERM
        <BLANKLINE>
        SAGE: +2.83 (36 pairs, W/T/L 12/0/0)
          these datasets       [+2.17, +3.48]    p < 0.001  t = 10.53, df 6
          datasets like these  [+0.48, +5.17]    p = 0.035  t = 5.19, df 2
        <BLANKLINE>
        Difference to ERM in points of held-out accuracy; model selection: training-
          domain validation set. 95% confidence intervals of each method alone; p
          adjusted for 1 method (Holm). W/T/L: wins, ties, losses over held-out
          environments.
        Mean rank over the datasets among 2 methods (1 = best): ERM 2.0, SAGE 1.0. It
          describes this table, and changes with the methods in it.
        <BLANKLINE>
        >>> float(comparison.frame.loc["SAGE", "difference"].round(3))
        2.825
    """
    return comparisons.compare(table(results, selection), reference, methods, _folders(results))


def _folders(results: pd.DataFrame | Folders) -> list[Path]:
    """The results folders that hold the runs; none if a frame no longer knows them."""
    if isinstance(results, pd.DataFrame):
        return _paths(strict_json.loads(results.attrs.get("folders", "[]")))
    return _paths(results)


def _paths(folders: Folders) -> list[Path]:
    return [Path(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]


def _load(folders: Folders, include_unfinished: bool) -> Loaded:
    loaded = load_folders(_paths(folders), include_unfinished=include_unfinished)
    for fault in loaded.faults:
        _log.warning("%s", fault)
    return loaded


def _expected(frame: pd.DataFrame, runs: Sequence[RunRecord]) -> list[Key] | None:
    """The results that a frame has runs for, and those that were missing when it was loaded, in its order.

    None if the frame no longer knows what was missing, for example after it was joined with another.
    """
    if "missing" not in frame.attrs:
        return None
    present = [run.key for run in runs if run.single]
    datasets, labels = (_order(frame[name]) for name in ("dataset", "label"))
    missing: Iterable[Key] = (tuple(key) for key in strict_json.loads(frame.attrs["missing"]))
    keys = {*present, *(key for key in missing if key[0] in datasets and key[1] in labels)}
    return sorted(keys, key=lambda key: (datasets[key[0]], labels[key[1]], *key[2:]))


def _order(column: "pd.Series[str]") -> Mapping[str, int]:
    """The values of a column, in the order of its categories if it has any."""
    is_ordered = isinstance(column.dtype, pd.CategoricalDtype)
    values = column.cat.remove_unused_categories().cat.categories if is_ordered else column.unique()
    return {str(value): at for at, value in enumerate(values)}
