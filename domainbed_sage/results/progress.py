"""How each run got to its number: the held-out accuracy of the checkpoint that was selected so far.

A line through the evaluations of a run would say what no user of the method gets, and a mean over trials at each step
would average other trials at every step where the held-out environment is evaluated only for the checkpoints that are
selected. The accuracy of the checkpoint selected so far is defined at every step of every trial.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from domainbed_sage.results.expected import Key
from domainbed_sage.results.records import FloatArray, IntArray, RunRecord
from domainbed_sage.results.selection import best_by_source_validation, source_validation

_MEASURED = ("step", "selected_step", "selected_so_far", "source_validation", "loss")
COLUMNS = ("dataset", "label", "env", "environment", "trial", "hparams_seed", "hparams", "run", *_MEASURED)
MEASURES = _MEASURED[2:]
_CURVE = ["dataset", "label", "env", "environment"]


def selected_so_far(run: RunRecord) -> IntArray:
    """For each evaluation, the row of the one that `training_domain` would choose of it and those before, [T].

    It is -1 where there is nothing to choose yet. A run that ends in weights of its own (`RunRecord.evaluated`) has a
    choice at its last evaluation only: those before are of weights that the method does not give.
    """
    value = np.where(np.isnan(validation := source_validation(run)), -np.inf, validation)
    if run.evaluated:
        value[:-1] = -np.inf
    highest_before = np.concatenate([[-np.inf], np.maximum.accumulate(value)[:-1]])
    chosen: IntArray = np.maximum.accumulate(np.where(value > highest_before, np.arange(len(value)), -1))
    return chosen


def of_runs(runs: Sequence[RunRecord], names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """One row for each dataset, label, held-out environment, trial and step, in the order of the runs.

    A trial with several hyperparameter settings is represented by the one that `training_domain` selects in the end.
    All trials of a label in an environment have rows at the same steps, those at which any of them was evaluated.

    ==================  ============================================================================================
    selected_so_far     held-out in-split accuracy, in [0, 1], of the checkpoint selected so far, carried forward to
                        later steps; NaN before there is one, and where its accuracy was not recorded
    selected_step       its step; NaN before there is one
    source_validation   mean out-split accuracy of the source environments at this step; NaN where not evaluated
    loss                mean training loss since the evaluation before; NaN where not recorded
    ==================  ============================================================================================

    The other columns are environment (name of env), hparams_seed, hparams, and run (name of its folder). At the last
    step, selected_so_far is the number of the table by training-domain validation. Trials of which nothing can be
    selected, and runs that hold out two environments, have no rows.

    Args:
        runs: the runs.
        names: environment names of each dataset, see `environment_names`.
    """
    trials: defaultdict[Key, list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.single:
            trials[run.key].append(run)
    curves: defaultdict[tuple[str, str, int], list[RunRecord]] = defaultdict(list)
    for key, settings in trials.items():
        if (best := best_by_source_validation(settings)) is not None:
            curves[key[:3]].append(best.run)
    drawn: list[tuple[RunRecord, IntArray]] = []
    for chosen in curves.values():
        steps = np.unique(np.concatenate([run.steps for run in chosen]))
        drawn += [(run, steps) for run in sorted(chosen, key=lambda run: run.trial_seed)]
    return _frame(drawn, names) if drawn else pd.DataFrame(columns=list(COLUMNS))


def _frame(drawn: Sequence[tuple[RunRecord, IntArray]], names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    facts = [
        (
            *(run.dataset, run.label, run.test_envs[0], names[run.dataset][run.test_envs[0]]),
            *(run.trial_seed, run.hparams_seed, run.hparams, run.name),
        )
        for run, _ in drawn
    ]
    frame = pd.DataFrame(facts, columns=list(COLUMNS[: -len(_MEASURED)]))
    frame = frame.loc[np.repeat(np.arange(len(drawn)), [len(steps) for _, steps in drawn])].reset_index(drop=True)
    curves = [_curve(run, steps) for run, steps in drawn]
    return frame.assign(**{name: np.concatenate([curve[name] for curve in curves]) for name in _MEASURED})


def _curve(run: RunRecord, steps: IntArray) -> dict[str, FloatArray | IntArray]:
    """The measured columns of a run at these steps."""
    at = np.searchsorted(run.steps, steps, side="right") - 1  # the last evaluation up to each step; -1: none yet
    here = np.where(np.isin(steps, run.steps), at, -1)
    so_far = selected_so_far(run)
    return {
        "step": steps,
        "selected_step": _taken(_taken(run.steps, so_far), at),
        "selected_so_far": _taken(_taken(run.in_acc[:, run.test_envs[0]], so_far), at),
        "source_validation": _taken(source_validation(run), here),
        "loss": _taken(run.loss, here),
    }


def _taken(values: FloatArray | IntArray, at: IntArray) -> FloatArray:
    """The values at these places; NaN where a place is -1."""
    return np.where(at < 0, np.nan, values[at])


def means(progress: pd.DataFrame) -> pd.DataFrame:
    """Mean, lowest and highest over the trials of each curve of `of_runs`, a row for each step.

    Columns: dataset, label, env, environment, step, trials (how many), and for each measure its name, and with ``_low``
    and ``_high``. All are NaN at a step where a trial has no value, so that every point of a curve is over all trials.
    """
    grouped = progress.groupby([*_CURVE, "step"], sort=False, observed=True)
    size = grouped.size()
    columns = {"trials": size}
    for measure in MEASURES:
        values = grouped[measure]
        complete = values.count() == size
        for name, function in ((measure, "mean"), (f"{measure}_low", "min"), (f"{measure}_high", "max")):
            columns[name] = values.agg(function).where(complete)
    return pd.DataFrame(columns).reset_index()
