"""Records of other programs: what is not what it should be is refused by file, record and name, never converted."""

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import sweep_folder

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import facts, record_cache
from domainbed_sage.results.planned import MOST_ENVS
from domainbed_sage.results.records import RESULTS, parse_run, run_record


def lines(**args):
    return sweep_folder.records([[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6], [0.7, 0.8]], **args)


def spoiled(at, changes=(), args=()):
    """Two good records, of which one is changed."""
    records = lines()
    records[at]["args"] = records[at]["args"] | dict(args)
    records[at] |= dict(changes)
    return records


def read(folder, records):
    path = folder / "run"
    path.mkdir(exist_ok=True)
    (path / RESULTS).write_text("".join(json.dumps(record) + "\n" for record in records))
    return run_record(path, parse_run(path / RESULTS)[0])


def fact(at, name, value, expected):
    return pytest.param(spoiled(at, {name: value}), f"record {at + 1}: '{name}' should be {expected}", id=f"{name}")


def arg(at, name, value, expected):
    return pytest.param(spoiled(at, args={name: value}), f"record {at + 1}: '{name}' should be {expected}", id=name)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        fact(1, "env0_in_acc", 81.2, "an accuracy in [0, 1]. Found 81.2. It looks like percent: divide it by 100."),
        fact(1, "env1_out_acc", -0.1, "an accuracy in [0, 1]. Found -0.1."),
        fact(1, "env1_out_acc", float("inf"), "an accuracy in [0, 1]"),
        fact(1, "env0_in_acc", True, "a number. Found True"),
        fact(1, "env0_in_acc", "0.5", "a number. Found '0.5'"),
        fact(0, "env0_in_acc", [0.5], "a number. Found [0.5]"),
        fact(1, "loss", 10**400, "a number of 64 bits"),
        fact(1, "loss", False, "a number. Found False"),
        fact(1, "step", "300", "a number. Found '300'"),
        fact(1, "step", 10**19, "a number of training steps. Found 1000"),
        fact(1, "step", 2**53, "a number of training steps"),
        fact(1, "step", 0.6, "a number of training steps. Found 0.6"),
        fact(0, "step", -1, "a number of training steps. Found -1"),
        fact(1, "step", float("inf"), "a number of training steps. Found inf"),
        fact(0, "environments", "A C", "a list of texts. Found 'A C'"),
        fact(0, "environments", {"a": 1}, "a list of texts"),
        pytest.param(spoiled(0, {"environments": ["a", 1]}), "record 1: 'environments' should be a text. Found 1"),
        fact(0, "data", "PACS", "a JSON object. Found 'PACS'"),
        fact(1, "device", ["cpu"], "a text. Found ['cpu']"),
        fact(1, "args", [1], "a JSON object. Found [1]"),
        arg(1, "dataset", ["PACS"], "a text. Found ['PACS']"),
        arg(0, "algorithm", 3, "a text. Found 3"),
        arg(0, "label", "\ud800", "a text of Unicode characters"),
        arg(0, "model", {"name": "x"}, "a text"),
        arg(0, "optimizer", 1, "a text"),
        arg(0, "precision", 32, "a text"),
        arg(1, "trial_seed", 0.9, "an integer of 64 bits. Found 0.9"),
        arg(1, "trial_seed", False, "an integer of 64 bits. Found False"),
        arg(0, "trial_seed", "0", "an integer of 64 bits. Found '0'"),
        arg(0, "hparams_seed", 2**63, "an integer of 64 bits"),
        arg(0, "hparams_seed", -(2**63) - 1, "an integer of 64 bits"),
        arg(0, "hparams_seed", float("nan"), "an integer of 64 bits"),
        arg(0, "test_envs", [-1], "a list of distinct indices from 0 on. Found [-1]"),
        arg(0, "test_envs", [0, 0], "a list of distinct indices from 0 on. Found [0, 0]"),
        arg(0, "test_envs", "01", "a list of environments' indices. Found '01'"),
        arg(0, "test_envs", [True], "an integer of 64 bits. Found True"),
        arg(0, "steps", 0.5, "an integer of 64 bits"),
        arg(0, "steps", 0, "a positive integer"),
        arg(0, "holdout_fraction", "0.2", "a number between 0 and 1"),
        arg(0, "holdout_fraction", 20, "a number between 0 and 1"),
        arg(0, "holdout_fraction", True, "a number between 0 and 1"),
        pytest.param(spoiled(1, {"args": None}), "record 2: 'args' should hold dataset, algorithm", id="no args"),
        pytest.param(spoiled(1, {"env3_in_acc": 0.1}), "accuracy of env3 and none of env2", id="a gap"),
        pytest.param(spoiled(0, {"env99999999999_out_acc": 0.1}), "env99999999999 and none of env2", id="huge"),
        pytest.param(spoiled(0, {f"env{'9' * 4999}_in_acc": 0.1}), "env99999999999999999999 and none", id="huger"),
        pytest.param(
            spoiled(0, {f"env{at}_in_acc": 0.1 for at in range(MOST_ENVS + 1)}), "accuracy of env1000. ", id="many"
        ),
    ],
)
def test_what_a_record_should_not_say(tmp_path, records, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(tmp_path, records)
    assert str(tmp_path / "run" / RESULTS) in str(caught.value)


@pytest.mark.parametrize("number", [1, 2])
def test_a_name_twice(tmp_path, number):
    """Of two accuracies the first would be lost without a word, and the last line is no torn one."""
    written = [json.dumps(line).replace('"loss"', '"step": 9, "loss"') for line in lines()[:2]]
    written[2 - number] = json.dumps(lines()[2 - number])
    path = tmp_path / RESULTS
    path.write_text("\n".join(written) + "\n")
    with pytest.raises(UserError, match=rf"line {number}, has the key 'step' 2 times"):
        parse_run(path)


def test_too_deep_to_be_read(tmp_path):
    path = tmp_path / RESULTS
    path.write_text(json.dumps(lines()[0]) + "\n" + "[" * 100_000)
    with pytest.raises(UserError, match=r"line 2, is nested too deeply"):
        parse_run(path)
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(UserError, match="nested too deeply"):
        run_record(tmp_path, [lines()[0] | {"hparams": nested}])


def test_what_a_record_may_say(tmp_path):
    """Null is as good as nothing, whole numbers may be written as 3.0, a mean may exceed 1 by rounding."""
    records = spoiled(0, {"environments": None, "data": None, "step": 0.0, "env0_in_acc": 1 + facts.ROUNDING / 2})
    for record in records:
        record["args"] |= {"trial_seed": 2.0, "steps": None, "holdout_fraction": None, "model": None}
    run = read(tmp_path, records)
    assert (run.environments, run.variant, run.model) == ((), "", "")
    assert (run.trial_seed, run.planned_steps, run.holdout_fraction) == (2, 0, 0.0)
    assert run.steps.tolist() == [0, 10]
    wide = lines()[0] | {f"env{at}_{half}_acc": 0.5 for at in range(MOST_ENVS) for half in ("in", "out")}
    assert read(tmp_path, [wide]).n_envs == MOST_ENVS
    for record in records:
        record["args"] |= {"steps": 11, "holdout_fraction": 0.25}
    run = read(tmp_path, records)
    assert (run.planned_steps, run.holdout_fraction) == (11, 0.25)


@pytest.mark.parametrize("at", [0, 1])
def test_a_key_that_a_record_has_twice_is_named(tmp_path, at):
    """Also in the last line, which may be torn: it is whole."""
    texts = [json.dumps(record) for record in lines()]
    texts[at] = texts[at].replace('"args": {', '"args": {"trial_seed": 5, ')
    (tmp_path / RESULTS).write_text("".join(f"{text}\n" for text in texts))
    with pytest.raises(UserError, match=rf"{RESULTS}, line {at + 1}, has the key 'trial_seed' 2 times"):
        parse_run(tmp_path / RESULTS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FACTS = st.sampled_from([*lines()[0], "environments", "data", "device", "versions", "env2_in_acc", "env07_in_acc"])
ARGS = st.sampled_from([*lines()[0]["args"], "label", "model", "steps", "holdout_fraction"])
CHANGES = st.tuples(
    st.integers(0, 1), st.dictionaries(FACTS, JSON, max_size=2), st.dictionaries(ARGS, JSON, max_size=2)
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES)
def test_any_record_is_read_or_refused(tmp_path, changes):
    at, facts_changed, args_changed = changes
    records = spoiled(at, facts_changed, args_changed)
    message, run = "", None
    try:
        run = read(tmp_path, records)
    except UserError as error:
        message = str(error)
    if run is None:
        assert RESULTS in message
        return
    for accuracy in (run.in_acc, run.out_acc):
        assert accuracy.shape == (len(records), run.n_envs)
        assert np.all(np.isnan(accuracy) | ((accuracy >= 0) & (accuracy <= 1 + facts.ROUNDING)))
    assert set(run.test_envs) <= set(range(run.n_envs))
    table = record_cache._pack([record_cache.Cached(record_cache.Stamp(0, 0, 0), run)])
    assert record_cache._unpack(table)["run"].record.steps.tolist() == run.steps.tolist()
