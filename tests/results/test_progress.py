"""Held-out accuracy of the checkpoint selected so far: equality with a loop, with the table, and no dip of its own."""

import random

import numpy as np
import pandas as pd
import pytest
from reference import sweep_folder

from domainbed_sage.results import progress, tables
from domainbed_sage.results.folder import load_records

NAN = float("nan")
NAMES = {"PACS": ("A", "C", "P")}


def lines(validation, held_out, **facts):
    """Records of a run that holds out environment 0 of three: source validation and held-out accuracy per step."""
    outs = [[0.0, value, value] for value in validation]
    return sweep_folder.records([[test, 0.9, 0.9] for test in held_out], outs, **facts)


def lazy(validation, held_out):
    """Held-out accuracies without those that a lazy evaluation leaves out: only of new bests, and the last."""
    best, found = -1.0, []
    for at, (value, test) in enumerate(zip(validation, held_out, strict=True)):
        found.append(test if value > best or at == len(validation) - 1 else NAN)
        best = max(best, value)
    return found


def of_folder(folder):
    return progress.of_runs(load_records(folder).records, NAMES)


def random_folder(folder, seed, trials=3, steps=8):
    """Lazily evaluated trials of two methods and settings; coarse accuracies, so that ties are frequent."""
    rng = random.Random(seed)
    for algorithm in ("ERM", "SAGE"):
        for trial in range(trials):
            for setting in (0, 1):
                validation = [rng.randint(0, 8) / 8 for _ in range(steps)]
                held_out = lazy(validation, [rng.randint(0, 16) / 16 for _ in range(steps)])
                sweep_folder.write(
                    folder, lines(validation, held_out, algorithm=algorithm, trial=trial, hparams_seed=setting)
                )


def literal(run, upto):
    """Accuracy of the first evaluation with the highest validation among the first `upto`."""
    best, accuracy = -1.0, NAN
    for at in range(upto):
        value = sum(run.out_acc[at, 1:]) / (run.n_envs - 1)
        if value > best:
            best, accuracy = value, run.in_acc[at, 0]
    return accuracy


@pytest.mark.parametrize("seed", range(8))
def test_equals_a_loop(tmp_path, seed):
    random_folder(tmp_path, seed)
    by_name = {run.name: run for run in load_records(tmp_path).records}
    frame = of_folder(tmp_path)
    assert len(frame) == 2 * 3 * 8
    for run, rows in frame.groupby("run"):
        expected = [literal(by_name[run], at) for at in range(1, 9)]
        np.testing.assert_array_equal(rows["selected_so_far"], expected)
        np.testing.assert_array_equal(rows["source_validation"], by_name[run].out_acc[:, 1:].mean(axis=1))
        at = np.searchsorted(by_name[run].steps, rows["selected_step"])
        np.testing.assert_array_equal(rows["selected_so_far"], by_name[run].in_acc[at, 0])


@pytest.mark.parametrize("seed", range(8))
def test_curves_end_in_the_number_of_the_table(tmp_path, seed):
    """Of every trial, its setting and step; and so does the mean of the curves."""
    random_folder(tmp_path, seed)
    table = tables.build(load_records(tmp_path).records, "training-domain", labels=NAMES)
    last = of_folder(tmp_path).groupby(["label", "trial"]).last()
    chosen = table.results.set_index(["algorithm", "trial_seed"])
    for ours, theirs in (("selected_so_far", "test_acc"), ("selected_step", "step"), ("hparams_seed", "hparams_seed")):
        np.testing.assert_array_equal(last[ours], chosen[theirs])
    ends = progress.means(of_folder(tmp_path)).groupby("label").last()["selected_so_far"]
    np.testing.assert_allclose(100 * ends, table.grids[0].means["A"].loc[ends.index], rtol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_no_dip_that_no_run_has(tmp_path, seed):
    """Runs that only rise: their mean does, too, although the trials' evaluations are of other steps."""
    rng = random.Random(seed)
    for trial in range(3):
        validation = [rng.random() for _ in range(12)]
        held_out = lazy(validation, sorted(rng.random() for _ in range(12)))
        sweep_folder.write(tmp_path, lines(validation, held_out, trial=trial))
    by_step = progress.means(of_folder(tmp_path))["selected_so_far"]
    assert (by_step.diff().dropna() >= 0).all()


def test_the_mean_of_what_was_evaluated_would_dip(tmp_path):
    """At step 20 only the worse trial was evaluated."""
    for trial, validation, held_out in (
        (0, [0.5, 0.7, 0.6, 0.8], [0.8, 0.9, NAN, 0.9]),
        (1, [0.5, 0.6, 0.7, 0.8], [0.2, 0.3, 0.4, 0.5]),
    ):
        sweep_folder.write(tmp_path, lines(validation, held_out, trial=trial))
    evaluated = pd.DataFrame([run.in_acc[:, 0] for run in load_records(tmp_path).records])
    np.testing.assert_allclose(evaluated.mean(), [0.5, 0.6, 0.4, 0.7])
    np.testing.assert_allclose(progress.means(of_folder(tmp_path))["selected_so_far"], [0.5, 0.6, 0.65, 0.7])


def test_ties_and_evaluations_without_validation(tmp_path):
    """The first of equal ones; NaN is never chosen; before there is a choice, there is no number."""
    sweep_folder.write(tmp_path, lines([NAN, 0.5, 0.5, NAN, 0.75], [0.1, 0.2, 0.3, 0.4, 0.6]))
    frame = of_folder(tmp_path)
    np.testing.assert_array_equal(frame["selected_so_far"], [NAN, 0.2, 0.2, 0.2, 0.6])
    np.testing.assert_array_equal(frame["selected_step"], [NAN, 10, 10, 10, 40])


def test_weights_that_a_method_ends_in_have_no_number_before(tmp_path):
    ending = lines([0.9, 0.8, 0.5], [0.9, 0.8, 0.3])
    ending[-1]["evaluated"] = "average of steps 3 … 20"
    sweep_folder.write(tmp_path, ending)
    np.testing.assert_array_equal(of_folder(tmp_path)["selected_so_far"], [NAN, NAN, 0.3])
    np.testing.assert_array_equal(of_folder(tmp_path)["source_validation"], [0.9, 0.8, 0.5])


def test_trials_share_their_steps(tmp_path):
    """A trial is carried forward to steps at which only another was evaluated; what it did not measure there is NaN."""
    sweep_folder.write(tmp_path, lines([0.5, 0.6, 0.7], [0.1, 0.2, 0.3]))
    other = lines([0.5, 0.6], [0.5, 0.6], trial=1)
    other[1]["step"] = 15
    sweep_folder.write(tmp_path, other)
    frame = of_folder(tmp_path)
    assert frame["step"].to_list() == [0, 10, 15, 20] * 2
    np.testing.assert_array_equal(frame["selected_so_far"], [0.1, 0.2, 0.2, 0.3, 0.5, 0.5, 0.6, 0.6])
    np.testing.assert_array_equal(frame["source_validation"], [0.5, 0.6, NAN, 0.7, 0.5, NAN, 0.6, NAN])
    np.testing.assert_array_equal(frame["loss"], [1, 1 / 2, NAN, 1 / 3, 1, NAN, 1 / 2, NAN])
    mean = progress.means(frame)
    np.testing.assert_allclose(mean["selected_so_far"], [0.3, 0.35, 0.4, 0.45])
    np.testing.assert_array_equal(mean["selected_so_far_low"], [0.1, 0.2, 0.2, 0.3])
    np.testing.assert_array_equal(mean["selected_so_far_high"], [0.5, 0.5, 0.6, 0.6])
    np.testing.assert_array_equal(mean["source_validation"], [0.5, NAN, NAN, NAN])
    assert mean["trials"].to_list() == [2] * 4


def test_what_has_no_curve(tmp_path):
    """Runs that hold out two environments, and trials of which nothing can be selected."""
    sweep_folder.write(tmp_path, sweep_folder.records([[0.5] * 3], [[0.5] * 3], test_envs=(0, 1)))
    sweep_folder.write(tmp_path, lines([NAN], [0.5], trial=1))
    frame = of_folder(tmp_path)
    assert list(frame.columns) == list(progress.COLUMNS)
    assert frame.empty
    assert progress.means(frame).empty
    sweep_folder.write(tmp_path, lines([0.5], [0.5], trial=2))
    frame = of_folder(tmp_path)
    assert frame[["trial", "env", "environment"]].to_numpy().tolist() == [[2, 0, "A"]]
