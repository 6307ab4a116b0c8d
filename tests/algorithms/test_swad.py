"""SWAD: the valleys recorded from the authors' code, runs from their updates to their end, restarts."""

import copy
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from algorithm_cases import algorithm, batches, mlp, run, weights
from properties import assert_close, assert_same_bits

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.algorithms.valley import LossValley, Segment
from domainbed_sage.core.errors import UserError
from domainbed_sage.models.optimizers import sgd

GOLDENS = Path(__file__).parents[1] / "data" / "goldens.npz"
INFO = json.loads(GOLDENS.with_suffix(".json").read_text())
ARRAYS = dict(np.load(GOLDENS))
VALLEYS = range(len(INFO["records"]["SWAD"]))
AROUND = {"around": "SAM", "around_hparams": {"rho": 0.05}}


def recorded(name):
    return torch.from_numpy(ARRAYS[name])


def made_valley(case):
    return LossValley(case["n_converge"], case["n_tolerance"], case["tolerance_ratio"])


def driven(i, restart=False):
    """The valley of the i-th recording, its end, and the step of the early stop; the weights end in a unit vector.

    With `restart`, every evaluation is followed by a saved state and a new valley.
    """
    case = INFO["records"]["SWAD"][i]
    valley, steps, freq = made_valley(case), case["steps"], case["checkpoint_freq"]
    path = torch.cat([recorded(f"SWAD/{i}/trajectory"), torch.eye(steps, dtype=torch.float64)], 1)
    for start in [0, *range(1, steps, freq)]:
        end = start + freq - 1 if start else 0
        if end >= steps:
            break
        loss = float(recorded(f"SWAD/{i}/val_loss")[end // freq])
        valley.note(Segment((path[start : end + 1].mean(0),), loss, start, end))
        if restart:
            state, valley = copy.deepcopy(valley.state_dict()), made_valley(case)
            valley.load_state_dict(state)
        if valley.dead:
            return valley, valley.ended()[0], end
    return valley, valley.ended()[0], -1


@pytest.mark.parametrize("i", VALLEYS)
def test_recorded_valley(i):
    def found(key):
        return ARRAYS[f"SWAD/{i}/{key}"]

    valley, end, stopped = driven(i)
    assert_close(end[:5], found("average"), 1e-12)
    assert_close(end[5:], found("coefficient"), 1e-12)
    assert stopped == found("stopped")
    assert valley.dead == found("dead")
    included = np.flatnonzero(found("coefficient"))
    assert valley.steps == (included[0], included[-1])
    if found("converge_step") < 0:
        assert valley.converged is valley.threshold is None
        assert valley.steps == (found("start_step"), found("end_step"))
        return
    assert valley.converged[1] == found("converge_step")
    assert valley.threshold == pytest.approx(float(found("threshold")), rel=1e-12)
    assert len(valley.added) == found("n_averaged")
    if valley.added:
        assert (valley.added[0][0], valley.added[-1][1]) == (found("start_step"), found("end_step"))
    counts = Counter(end for _, end in valley.added or [valley.converged])
    freq = INFO["records"]["SWAD"][i]["checkpoint_freq"]
    assert [counts[freq * j] for j in range(len(found("segment_count")))] == found("segment_count").tolist()


@pytest.mark.parametrize("i", VALLEYS)
def test_valley_restarts_bit_for_bit(i):
    (one, end, _), (other, end_of_other, _) = driven(i), driven(i, restart=True)
    assert_same_bits(end, end_of_other)
    assert (one.added, one.steps) == (other.added, other.steps)


@pytest.mark.parametrize(("loss", "dead"), [(1.0, False), (1.0 + 1e-9, True)])
def test_a_loss_at_the_threshold_is_not_above_it(loss, dead):
    valley = LossValley(2, 2, 0.0)
    for step, value in enumerate([1.0, 1.0, *[loss] * 4]):
        valley.note(Segment((torch.zeros(1),), value, step, step))
    assert (valley.threshold, valley.dead) == (1.0, dead)


def test_a_dead_valley_takes_nothing_in_and_keeps_no_segments():
    valley, end, _ = driven(1)
    assert valley.dead
    assert valley.queue == []
    valley.note(Segment((torch.zeros_like(end),), 0.0, 100, 101))
    assert_same_bits(valley.ended()[0], end)
    assert valley.queue == []


# A run, from its updates to its end

SWAD = AROUND | {"n_converge": 2, "n_tolerance": 2, "tolerance_ratio": 0.3}


def swad(losses, made=None, start=0, steps=8, seed=0):
    """Weights after every step of a run with evaluations after every second step, and its algorithm."""
    made, path = made or algorithm("SWAD", mlp(seed=seed), **SWAD), []
    there = batches((2, 3, 4), steps)
    for t in range(start, steps):
        path.append(run(made, [there[t]], t)[0])
        if t % 2 == 0:
            made.validated(losses[t // 2])
    return made, path


@pytest.mark.parametrize(
    ("losses", "text", "included"),
    [
        ([3.0, 1.0, 1.1, 1.2], "average of steps 3 … 6", [3, 4, 5, 6]),
        ([3.0, 2.0, 1.0, 0.5], "average of steps 5 … 6, the last segment: the loss has not converged", [5, 6]),
    ],
)
def test_swad_ends_in_the_mean_of_the_segments(losses, text, included):
    made, path = swad(losses)
    assert made.finish() == text
    assert_close(weights(made.model), torch.stack([path[t] for t in included]).mean(0), 1e-12)


def test_swad_stops_when_the_valley_is_dead():
    made, path = swad([1.0, 1.0, 9.0, 9.0, 0.1, 0.1], steps=12)
    assert made.valley.dead
    assert_same_bits(torch.stack(path[7:]), path[6].expand(5, -1))
    assert not torch.equal(path[6], path[5])
    ended = {name: value.clone() for name, value in made.update(batches((2, 3, 4), 1)[0]).items()}
    other, _ = swad([1.0, 1.0, 9.0, 9.0], steps=7)
    assert ended == other.last.metrics
    assert set(ended) == {"loss", "loss_perturbed", "epsilon_norm"}
    assert made.finish() == other.finish()
    assert_same_bits(weights(made.model), weights(other.model))


@pytest.mark.parametrize("stop", range(1, 12))
@pytest.mark.parametrize(
    "losses", [[3.0, 1.0, 1.1, 1.2, 1.1, 1.0], [1.0, 1.0, 9.0, 9.0, 0.1, 0.1], [6, 5, 4, 3, 2, 1.0]]
)
def test_swad_resumes_bit_for_bit(losses, stop):
    whole, path = swad(losses, steps=12)
    first, _ = swad(losses, steps=stop)
    saved = copy.deepcopy(first.state_dict())
    second = algorithm("SWAD", mlp(seed=9), **SWAD)
    second.load_state_dict(saved)
    there = batches((2, 3, 4), 12)
    for t in range(stop, 12):
        assert_same_bits(run(second, [there[t]], t)[0], path[t])
        if t % 2 == 0:
            second.validated(losses[t // 2])
    assert second.update(there[0]).keys() == whole.update(there[0]).keys()
    assert second.finish() == whole.finish()
    assert_same_bits(weights(second.model), weights(whole.model))


def test_swad_that_was_never_evaluated_ends_in_its_last_weights():
    made = algorithm("SWAD", mlp(), **AROUND)
    last = run(made, batches((2, 3, 4)))[-1]
    assert made.finish() == ""
    assert_same_bits(weights(made.model), last)


def test_swad_needs_evaluations_to_converge():
    def made(evaluations):
        return algorithms["SWAD"](Problem(mlp(), sgd, 3, "fp64", steps=100, evaluations=evaluations), n_converge=4)

    with pytest.raises(UserError, match=r"n_converge = 4 evaluations.*Found 3: .*100 steps\. Lower checkpoint_freq"):
        made(3)
    assert made(4).valley.n_converge == 4
    assert made(0).valley.n_converge == 4  # nobody trains to an end
