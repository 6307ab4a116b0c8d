"""The lazy grid selects what the full grid selects, and both equal a literal loop over the samples."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers import strictly
from reference import domainbed_selection

from domainbed_sage.config import Machine, make_config
from domainbed_sage.data.emoji import load_small
from domainbed_sage.data.splits import split
from domainbed_sage.data.transforms import DataOptions, eval_transform, normalize
from domainbed_sage.models import models
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.selection import METHODS
from domainbed_sage.training import train
from domainbed_sage.training.evaluate import Evaluator, fraction

TEST_ENV = 1


def run(folder, evaluation):
    config = make_config(
        dataset="EmojiStyles",
        algorithm="ERM",
        test_envs=[TEST_ENV],
        steps=41,
        checkpoint_freq=4,
        evaluation=evaluation,
        hparams={"width": 8, "lr": 3e-3},
    )
    train.run(config, Machine(folder / "run", device=torch.device("cpu"), skip_model_save=True))
    return [strictly(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def grids(tmp_path_factory):
    return {kind: (run(path := tmp_path_factory.mktemp(kind), kind), path) for kind in ("lazy", "full")}


@pytest.mark.parametrize("method", ["training-domain", "oracle"])
def test_both_grids_select_the_same(grids, method):
    chosen = {}
    for kind, (_, folder) in grids.items():
        chosen[kind] = METHODS[method].select(load_records(folder).records)
    assert chosen["lazy"] == chosen["full"]


@pytest.mark.parametrize("method", ["training-domain", "oracle"])
def test_domainbeds_own_rules_read_lazy_records(grids, method):
    """They see null in place of a number, and never touch it."""
    lazy, full = (domainbed_selection.select(grids[kind][0], method) for kind in ("lazy", "full"))
    assert lazy == full == METHODS[method].select(load_records(grids["lazy"][1]).records).test_acc


def test_lazy_is_the_full_grid_with_gaps_where_nothing_reads_it(grids):
    lazy, full = grids["lazy"][0], grids["full"][0]
    assert [r["step"] for r in lazy] == [r["step"] for r in full]
    best, skipped = -1.0, 0
    for ours, theirs in zip(lazy, full, strict=True):
        assert ours.keys() == theirs.keys()
        sources = [f"env{i}_out_acc" for i in range(4) if i != TEST_ENV]
        value, last = np.mean([theirs[k] for k in sources]), theirs is full[-1]
        held_out = [f"env{TEST_ENV}_{half}_acc" for half in ("in", "out")]
        evaluated = set(sources) | (set(held_out) if value > best or last else set())
        for k in (k for k in ours if k.startswith("env") and k.endswith("_acc")):
            assert ours[k] == theirs[k] if k in evaluated else ours[k] is None, (ours["step"], k)
        skipped += held_out[0] not in evaluated
        best = max(best, value)
    assert skipped, "the run should have an evaluation that is no new best"


@pytest.fixture(scope="module")
def measured():
    """An evaluator with so many loader processes, a network, and its accuracies by a loop over the samples."""
    torch.manual_seed(0)
    data = load_small()
    model = models["small_cnn"].build(data.classes).eval()
    transform, to_input = eval_transform(DataOptions(), model.image), normalize(model.image)
    splits = [split(len(env), i, 0) for i, env in enumerate(data.environments)]
    accuracies = {}
    with torch.no_grad():
        for i, (env, parts) in enumerate(zip(data.environments, splits, strict=True)):
            for half, indices in (("in", parts.in_), ("out", parts.out)):
                predicted = [int(model(to_input(transform(env.image(index))[None]))[0].argmax()) for index in indices]
                accuracies[f"env{i}_{half}_acc"] = float(np.mean(predicted == env.labels[indices]))
    make = partial(Evaluator, data.environments, splits, [TEST_ENV], transform, to_input, torch.device("cpu"))
    return make, model, accuracies


@pytest.mark.parametrize("num_workers", [0, 2])
def test_accuracies_equal_a_loop_over_the_samples(measured, num_workers):
    make, model, accuracies = measured
    assert make(num_workers).full(model) == accuracies
    assert len(set(accuracies.values())) > 4, "accuracies should tell the splits apart"


def test_losses_equal_a_loop_over_the_samples():
    torch.manual_seed(0)
    data = load_small()
    model = models["small_cnn"].build(data.classes).eval()
    transform, to_input = eval_transform(DataOptions(), model.image), normalize(model.image)
    splits = [split(len(env), i, 0) for i, env in enumerate(data.environments)]
    evaluator = Evaluator(
        data.environments, splits, [TEST_ENV], transform, to_input, torch.device("cpu"), with_losses=True
    )
    measured = evaluator.lazy(model, best=1.0, last=False)
    means = []
    with torch.no_grad():
        for i in (0, 2, 3):
            losses = [
                -model(to_input(transform(data.environments[i].image(index))[None]))
                .log_softmax(1)[0, data.environments[i].labels[index]]
                .item()
                for index in splits[i].out
            ]
            means.append(np.mean(losses))
            assert measured[f"env{i}_out_loss"] == pytest.approx(means[-1], rel=1e-5)
    assert evaluator.source_loss(measured) == pytest.approx(np.mean(means), rel=1e-5)
    assert f"env{TEST_ENV}_out_loss" not in measured


def test_an_empty_split_has_no_accuracy():
    assert np.isnan(fraction(np.zeros(0, dtype=bool)))
