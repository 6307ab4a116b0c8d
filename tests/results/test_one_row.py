"""Runs of one row of a table differ in hyperparameters, seeds and environments alone."""

import re

import pandas as pd
import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.core.errors import UserError
from domainbed_sage.results.folder import load_records

KNOWN = {"model": "vit", "optimizer": "adam", "precision": "fp32", "steps": 11, "holdout_fraction": 0.2}
OTHER = {"model": "cnn", "optimizer": "sgd", "precision": "tf32", "steps": 21, "holdout_fraction": 0.3}


def write(folder, name, **args):
    lines = sweep_folder.records([[0.5, 0.9]] * 3, [[0.5, 0.5]] * 3, dataset=args.pop("dataset", "PACS"))
    for line in lines:
        line["args"] |= args
    last = args.get("steps") or 21
    sweep_folder.write(folder, [line for line in lines if line["step"] < last], name=name)


@pytest.mark.parametrize("changes", [{}, {"hparams_seed": 1}, {"trial_seed": 1}, {"test_envs": [1]}], ids=str)
@pytest.mark.parametrize("field", KNOWN)
def test_runs_of_one_row_are_alike(tmp_path, field, changes):
    write(tmp_path, "one", **KNOWN)
    write(tmp_path, "two", **KNOWN | {field: OTHER[field]} | changes)
    first, second = (rf"{name} has {field} {value[field]!r}" for name, value in (("one", KNOWN), ("two", OTHER)))
    with pytest.raises(
        UserError, match=rf"{re.escape(first)}, and .*{re.escape(second)}: both are runs of ERM on PACS"
    ):
        load_records(tmp_path)


def test_a_row_has_one_algorithm(tmp_path):
    write(tmp_path, "one", label="ours")
    write(tmp_path, "two", label="ours", algorithm="SAM", trial_seed=1)
    with pytest.raises(UserError, match=r"one has algorithm 'ERM', and .*two has algorithm 'SAM'"):
        load_records(tmp_path)


def test_what_to_do(tmp_path):
    write(tmp_path, "one", **KNOWN)
    write(tmp_path, "two", **KNOWN | {"model": "cnn"})
    with pytest.raises(UserError, match=r"`ERM cnn: {algorithm: ERM, model: cnn}`, or move one set to another folder"):
        load_records(tmp_path)


def test_no_row_of_its_own_for_what_a_row_cannot_set(tmp_path):
    write(tmp_path, "one", steps=11)
    write(tmp_path, "two", steps=21)
    with pytest.raises(UserError, match=r"environments\. Move one set to another folder\.$"):
        load_records(tmp_path)


def test_other_rows_and_data_sets_may_be_of_another_kind(tmp_path):
    write(tmp_path, "one", **KNOWN)
    write(tmp_path, "two", **OTHER, label="ERM cnn")
    write(tmp_path, "three", **OTHER, dataset="VLCS")
    assert len(load_records(tmp_path).records) == 3


def test_what_records_do_not_say_agrees_with_everything(tmp_path):
    """DomainBed's have no model, optimizer and precision, and null for the data set's own number of steps."""
    write(tmp_path, "a", steps=None)
    write(tmp_path, "b", trial_seed=1)
    write(tmp_path, "c", trial_seed=2, **KNOWN)
    write(tmp_path, "d", trial_seed=3)
    assert len(load_records(tmp_path).records) == 4
    write(tmp_path, "e", trial_seed=4, **OTHER)
    with pytest.raises(UserError, match=r"c has model 'vit', and .*e has model 'cnn'"):
        load_records(tmp_path)


def test_frames_too(tmp_path):
    write(tmp_path / "here", "one", **KNOWN)
    write(tmp_path / "there", "two", **KNOWN | {"holdout_fraction": 0.3, "trial_seed": 1})
    here, there = (dg.load_results(tmp_path / name) for name in ("here", "there"))
    here["holdout_fraction"] = there["holdout_fraction"].iloc[0]
    assert len(dg.table(pd.concat([here, there])).results) == 2
    here["holdout_fraction"] = 0.2
    with pytest.raises(UserError, match=r"one has holdout_fraction 0.2, and two has holdout_fraction 0.3"):
        dg.table(pd.concat([here, there]))
