"""Model selection: hand-computed cases, tie rules, NaN, and equality with the literal restatement."""

import random

import pytest
from reference import domainbed_selection, sweep_folder

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.selection import (
    DOMAINBED,
    METHODS,
    Selected,
    last,
    leave_one_domain_out,
    oracle,
    training_domain,
)

NAN = float("nan")


def runs(tmp_path, *many):
    """The runs that these lists of records make."""
    for i, lines in enumerate(many):
        sweep_folder.write(tmp_path, lines, name=f"run{i}")
    return load_records(tmp_path).records


def single(vals, tests, **args):
    """A run that holds out environment 0 of three: source validation `vals`, test accuracy `tests`, per step."""
    ins = [[test, 0.9, 0.9] for test in tests]
    outs = [[0.0, val, val] for val in vals]
    return sweep_folder.records(ins, outs, **args)


def pair(other, accuracies, **args):
    """A run that holds out environments 0 and `other` of three; in-split accuracy on `other` per step."""
    ins = [[0.99 if env != other else acc for env in range(3)] for acc in accuracies]
    return sweep_folder.records(ins, [[0.0] * 3] * len(ins), test_envs=[0, other], **args)


def test_titles_are_domainbeds():
    assert [METHODS[name].title for name in DOMAINBED] == [
        "training-domain validation set",
        "leave-one-domain-out cross-validation",
        "test-domain validation set (oracle)",
    ]


def test_training_domain_uses_source_out_and_reports_target_in(tmp_path):
    lines = sweep_folder.records(
        [[0.31, 0.9, 0.9], [0.32, 0.9, 0.9], [0.33, 0.9, 0.9]],
        [[1.0, 0.5, 0.5], [0.0, 0.75, 0.5], [0.0, 0.5, 0.5]],
    )
    assert training_domain(runs(tmp_path, lines)) == Selected(0.32, 0.625, 10, 0)


def test_training_domain_ties_first_step_last_setting(tmp_path):
    first = single([0.5, 0.75, 0.75], [0.1, 0.2, 0.3], hparams_seed=0)
    later = single([0.75, 0.5, 0.75], [0.4, 0.5, 0.6], hparams_seed=2)
    worse = single([0.25, 0.5, 0.25], [0.7, 0.8, 0.9], hparams_seed=10)
    assert training_domain(runs(tmp_path, worse, later, first)) == Selected(0.4, 0.75, 0, 2)


def test_weights_that_a_method_ends_in_are_the_only_ones_to_select(tmp_path):
    """The evaluations before were of other weights, however good."""
    lines = single([0.9, 0.8, 0.5], [0.9, 0.8, 0.3])
    lines[-1]["evaluated"] = "average of steps 3 … 20"
    assert training_domain(runs(tmp_path / "one", lines)) == Selected(0.3, 0.5, 20, 0)
    assert oracle(runs(tmp_path / "two", lines)) == Selected(0.3, 0.0, 20, 0)
    pairs = [pair(env, [0.9, 0.8, 0.25]) for env in (1, 2)]
    assert leave_one_domain_out(runs(tmp_path / "three", lines, *pairs)) == Selected(0.3, 0.25, 20, 0)


def test_oracle_takes_the_last_step_and_the_last_setting_on_ties(tmp_path):
    def lines(outs, ins, **args):
        return sweep_folder.records([[i, 0.9, 0.9] for i in ins], [[o, 0.5, 0.5] for o in outs], **args)

    chosen = oracle(
        runs(
            tmp_path,
            lines([0.9, 0.5], [0.1, 0.2], hparams_seed=0),
            lines([0.2, 0.5], [0.3, 0.4], hparams_seed=1),
            lines([0.9, 0.4], [0.5, 0.6], hparams_seed=2),
        )
    )
    assert chosen == Selected(0.4, 0.5, 10, 1)


def test_the_last_step_is_not_selected_but_its_setting_is(tmp_path):
    """By the sources at the last step, whatever the held-out environment says; on ties the highest hparams_seed."""
    settings = [([0.9, 0.5], [0.1, 0.2]), ([0.1, 0.6], [0.3, 0.4]), ([0.7, 0.6], [0.5, 0.6]), ([0.6, 0.5], [0.7, 0.8])]
    lines = [single(vals, tests, hparams_seed=seed) for seed, (vals, tests) in enumerate(settings)]
    assert last(runs(tmp_path / "all", *lines)) == Selected(0.6, 0.6, 10, 2)
    assert last(runs(tmp_path / "one", lines[0])) == Selected(0.2, 0.5, 10, 0)
    assert last(runs(tmp_path / "none", single([0.5, NAN], [0.1, 0.2]))) is None
    assert "last" not in DOMAINBED


def test_leave_one_out_averages_the_second_held_out(tmp_path):
    chosen = leave_one_domain_out(
        runs(
            tmp_path,
            single([0.0] * 3, [0.1, 0.2, 0.3]),
            pair(1, [0.25, 0.5, 0.75]),
            pair(2, [0.25, 0.75, 0.5]),
        )
    )
    assert chosen == Selected(0.2, 0.625, 10, 0)


def test_leave_one_out_needs_every_pair(tmp_path):
    found = runs(tmp_path, single([0.5], [0.1]), pair(1, [0.5]))
    assert leave_one_domain_out(found) is None
    assert training_domain(found) == Selected(0.1, 0.5, 0, 0)


def test_leave_one_out_passes_over_steps_that_a_pair_lacks(tmp_path):
    chosen = leave_one_domain_out(
        runs(tmp_path, single([0.0] * 3, [0.1, 0.2, 0.3]), pair(1, [0.25, 0.5]), pair(2, [0.25, 0.5, 0.9]))
    )
    assert chosen == Selected(0.2, 0.5, 10, 0)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_select_from(tmp_path, method):
    assert METHODS[method].select([]) is None
    assert METHODS[method].select(runs(tmp_path, pair(1, [0.5]))) is None


def test_nan_validation_is_never_selected(tmp_path):
    lines = single([NAN, 0.25, 0.5, NAN], [0.1, 0.2, 0.3, 0.4])
    nothing = single([NAN], [0.9], hparams_seed=5)
    assert training_domain(runs(tmp_path, lines, nothing)) == Selected(0.3, 0.5, 20, 0)
    assert oracle(runs(tmp_path / "o", sweep_folder.records([[0.5, 0.5]], [[NAN, 0.5]]))) is None


def test_lazy_test_evaluation_suffices_at_new_bests(tmp_path):
    lines = single([0.25, 0.5, 0.5, 0.3], [0.1, 0.2, NAN, NAN])
    assert training_domain(runs(tmp_path, lines)) == Selected(0.2, 0.5, 10, 0)


def test_selected_step_without_test_accuracy_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"Run run0 .*step 10 is selected.* NaN"):
        training_domain(runs(tmp_path, single([0.25, 0.5], [0.1, NAN])))


def test_two_runs_for_one_setting_are_refused(tmp_path):
    twice = runs(tmp_path, single([0.5], [0.1]), single([0.5], [0.2], test_envs=[1]))
    with pytest.raises(UserError, match="run0, run1"):
        training_domain(twice)


def random_sweep(seed):
    """A gappy sweep over coarse accuracies, so that ties are frequent and exact; some evaluations are NaN."""
    rng = random.Random(seed)
    n = rng.choice([3, 4])
    chance_of_nan = rng.choice([0, 0.15])
    sets = [[i] for i in range(n)] + [[i, j] for i in range(n) for j in range(i)]
    sweep = []
    for hparams_seed in (0, 1, 2, 10):
        for test_envs in sets:
            if rng.random() < 0.04:
                continue

            def accuracies():
                return [[rng.randint(0, 8) / 8 for _ in range(n)] for _ in range(5)]

            lines = sweep_folder.records(accuracies(), accuracies(), test_envs=test_envs, hparams_seed=hparams_seed)
            for line in lines:
                for env in range(n):
                    if rng.random() < chance_of_nan:
                        line[f"env{env}_out_acc"] = NAN
            sweep.append(lines)
    return n, sweep


@pytest.mark.parametrize("seed", range(12))
def test_equals_literal_restatement(tmp_path, seed):
    n, sweep = random_sweep(seed)
    found = runs(tmp_path, *sweep)
    records = [line for lines in sweep for line in lines]
    for env in range(n):
        for name in DOMAINBED:
            chosen = METHODS[name].select([run for run in found if env in run.test_envs])
            expected = domainbed_selection.select([r for r in records if env in r["args"]["test_envs"]], name)
            assert (None if chosen is None else chosen.test_acc) == expected


def lazy(lines, blank):
    """The records of a run that holds out one environment, with `blank` for what lazy evaluation leaves out."""
    (test_env,), best, found = lines[0]["args"]["test_envs"], -1.0, []
    sources = [env for env in range(domainbed_selection.n_environments(lines[0])) if env != test_env]
    for line in lines:
        value = domainbed_selection.mean([line[f"env{env}_out_acc"] for env in sources])
        seen = {f"env{env}_out_acc" for env in sources}
        if value > best or line is lines[-1]:
            seen |= {f"env{test_env}_in_acc", f"env{test_env}_out_acc"}
        best = max(best, value)
        found.append({k: blank if k.endswith("_acc") and k not in seen else v for k, v in line.items()})
    return found


@pytest.mark.parametrize("blank", [None, NAN])
@pytest.mark.parametrize("method", ["training-domain", "oracle"])
@pytest.mark.parametrize("seed", range(6))
def test_what_lazy_records_leave_out_is_never_read(tmp_path, seed, method, blank):
    """Neither by DomainBed's rules nor by ours, whether the file says null or, as in version 0.1.0, NaN."""
    rng = random.Random(seed)

    def accuracies():
        return [[rng.randint(0, 8) / 8 for _ in range(4)] for _ in range(6)]

    full = [sweep_folder.records(accuracies(), accuracies(), test_envs=[2], hparams_seed=s) for s in range(4)]
    sweep = [lazy(lines, blank) for lines in full]
    assert any(value is blank for lines in sweep for line in lines for value in line.values())
    expected = domainbed_selection.select([line for lines in full for line in lines], method)
    assert domainbed_selection.select([line for lines in sweep for line in lines], method) == expected
    assert METHODS[method].select(runs(tmp_path, *sweep)).test_acc == expected


def test_a_run_that_holds_out_three_is_no_pair(tmp_path):
    chosen = [single([0.5, 0.5], [0.1, 0.2]), pair(1, [0.25, 0.75]), pair(2, [0.25, 0.75])]
    three = sweep_folder.records([[0.9, 0.9, 0.9]] * 2, [[0.0] * 3] * 2, test_envs=[0, 1, 2])
    assert leave_one_domain_out(runs(tmp_path, *chosen, three)) == Selected(0.2, 0.75, 10, 0)
