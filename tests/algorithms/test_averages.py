"""Averages of weights: SWAD's valleys and CLIPood's records from the authors' code, ends, restarts, and refusals."""

import copy
import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm_cases import CLASSES, IMAGE, algorithm, batch_norm_mlp, batches, mlp, run, trajectory, weights
from properties import assert_close, assert_same_bits
from torch import nn
from torch.nn.utils import parameters_to_vector

from domainbed_sage.algorithms import Algorithm, Problem, algorithms
from domainbed_sage.algorithms.averages import Average, beta_weight
from domainbed_sage.algorithms.clipood import CLIPood, margin_loss
from domainbed_sage.algorithms.erm import ERM
from domainbed_sage.algorithms.valley import LossValley, Segment
from domainbed_sage.core.errors import UserError
from domainbed_sage.models import Model
from domainbed_sage.models.clip import L2Normalize, ScaledLinear
from domainbed_sage.models.optimizers import sgd
from domainbed_sage.training.verify import _Replay

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


def test_a_dead_valley_takes_nothing_in_and_keeps_no_segments():
    valley, end, _ = driven(1)
    assert valley.dead
    assert valley.queue == []
    valley.note(Segment((torch.zeros_like(end),), 0.0, 100, 101))
    assert_same_bits(valley.ended()[0], end)
    assert valley.queue == []


@pytest.mark.parametrize("i", range(4))
def test_recorded_margin_loss(i):
    name, how = f"CLIPood/mms/{i}", INFO["records"]["CLIPood/mms"][i]
    image, text, y = (recorded(f"{name}/{key}") for key in ("image_features", "text_features", "y"))
    image.requires_grad_()
    loss = margin_loss(image, text, y, how["lam"], how["temperature"])
    (grad,) = torch.autograd.grad(loss, image)
    assert_close(loss.detach(), recorded(f"{name}/loss"), 1e-12)
    assert_close(grad, recorded(f"{name}/grad"), 1e-12)


@pytest.mark.parametrize("i", range(5))
def test_recorded_beta_average(i):
    """The average of unit vectors is their coefficients."""
    how = INFO["records"]["CLIPood/bma"][i]
    T, average = how["steps"], Average((torch.zeros(how["steps"] + 1, dtype=torch.float64),))
    found = [beta_weight(t, T, how["beta"]) for t in range(T + 1)]
    for t, weight in enumerate(found):
        average.add((F.one_hot(torch.tensor(t), T + 1).double(),), weight)
    assert found == pytest.approx(ARRAYS[f"CLIPood/bma/{i}/weight"].tolist(), rel=1e-12)
    assert_close(average.vector[0], recorded(f"CLIPood/bma/{i}/coefficient"), 1e-12)


def test_recorded_average_of_clipood():
    made = _Replay("CLIPood", INFO["hparams"]["CLIPood"], INFO["param_order"], ARRAYS)
    clipood, other = made.made(), made.made()
    x, y = recorded("x"), recorded("y")
    for t in range(len(x)):
        (batch,) = batches((6, 6, 6), 1)
        clipood.step = t
        clipood.update(type(batch)(x[t].flatten(0, 1), y[t].flatten(), batch.sizes))
        assert_close(parameters_to_vector(clipood.kept["average"].vector), recorded("CLIPood/averaged")[t], 1e-12)
    assert clipood.finish() == "Beta moving average of steps 0 … 10"
    assert_same_bits(
        parameters_to_vector(clipood.params).detach(), parameters_to_vector(clipood.kept["average"].vector)
    )
    assert_same_bits(clipood.model.classifier.weight, other.model.classifier.weight)


# Limits


def unit_model(scale=10.0, seed=0):
    """A network with features and fixed classifier of length 1, as CLIP's."""
    torch.manual_seed(seed)
    head = ScaledLinear(5, CLASSES, scale, bias=False).double()
    head.weight.data = F.normalize(head.weight.data, dim=1)
    featurizer = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), L2Normalize())
    return Model(featurizer, head.requires_grad_(False), IMAGE, class_features=True).double()


def test_clipood_without_margin_is_beta_average_of_erm_with_a_fixed_head():
    clipood = algorithm("CLIPood", unit_model(), lam=0.0, temperature=10.0, schedule="constant")
    erm = algorithm("BetaAverage", unit_model(), around="ERM")
    assert_close(run(clipood, batches((2, 3, 4))), run(erm, batches((2, 3, 4))), 1e-12)
    assert clipood.finish() == erm.finish()
    assert_close(weights(clipood.model), weights(erm.model), 1e-12)


def test_margin_and_schedule_of_clipood_count():
    plain = run(algorithm("CLIPood", unit_model(), lam=0.0, schedule="constant"), batches((2, 3, 4)))
    for change in ({"lam": 0.3, "schedule": "constant"}, {"lam": 0.0, "schedule": "cosine"}, {"temperature": 50.0}):
        other = run(
            algorithm("CLIPood", unit_model(), **{"lam": 0.0, "schedule": "constant"} | change), batches((2, 3, 4))
        )
        assert (plain - other)[-1].abs().max() > 1e-6


def test_beta_average_with_beta_1_is_the_mean_of_all_weights():
    made = algorithm("BetaAverage", mlp(), **AROUND, beta=1.0)
    start = weights(made.model)
    path = run(made, batches((2, 3, 4)))
    assert made.finish() == "Beta moving average of steps 0 … 4"
    assert_close(weights(made.model), torch.cat([start[None], path]).mean(0), 1e-12)


@pytest.mark.parametrize("name", ["SWAD", "BetaAverage"])
@pytest.mark.parametrize("around", ["ERM", "GGA_L", "Fish"])
def test_training_is_that_of_the_other_algorithm(name, around):
    assert_same_bits(trajectory(name, (2, 3, 4), around=around), trajectory(around, (2, 3, 4)))


def test_weights_without_updates_are_their_own_average():
    made = algorithm("CLIPood", mlp(), make_optimizer=partial(sgd, lr=1e-300))
    before = weights(made.model)
    run(made, batches((2, 3, 4)))
    made.finish()
    assert_close(weights(made.model), before, 1e-15)


def test_plans_know_no_number_of_steps():
    """Without T the schedule and the average are those of a run that ends with this step."""
    cls = algorithms["CLIPood"]
    made = cls(Problem(mlp(), sgd, 3, "fp64"))
    metrics = made.update(batches((2, 3, 4), 1)[0])
    assert metrics["lr"] > 0
    assert math.isfinite(metrics["weight"])


# SWAD's run, from its updates to its end

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


class HasNetworks(ERM):
    """Trains a second network beside the model, which its predictions need."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.networks["second"] = nn.Linear(2, 2).to(self.params[0])

    def update(self, batch):
        with torch.no_grad():
            for p in self.networks.parameters():
                p.fill_(self.step + 1)
        return super().update(batch)

    def forward(self, x):
        return super().forward(x) + self.networks["second"].weight.sum()


@pytest.fixture
def has_networks(monkeypatch):
    monkeypatch.setitem(algorithms._things, "HasNetworks", HasNetworks)


@pytest.mark.usefixtures("has_networks")
def test_further_networks_are_averaged_and_predict():
    torch.manual_seed(0)
    made = algorithm("BetaAverage", mlp(), around="HasNetworks", beta=1.0)
    start = parameters_to_vector(made.inner.networks.parameters()).detach().clone()
    run(made, batches((2, 3, 4), 2))
    made.finish()
    second = parameters_to_vector(made.inner.networks.parameters()).detach()
    assert_close(second, (start + 1 + 2) / 3, 1e-12)
    x = batches((2, 3, 4), 1)[0].x
    assert_close(made.forward(x).detach(), (made.model(x) + made.inner.networks["second"].weight.sum()).detach(), 1e-12)


# Bad input


@pytest.mark.parametrize("name", ["SWAD", "BetaAverage", "CLIPood"])
def test_moving_statistics_are_refused(name):
    with pytest.raises(UserError, match=rf"{name} ends in an average.*Found 1 BatchNorm layers.*freeze_bn"):
        algorithm(name, batch_norm_mlp(freeze_bn=False))
    made = algorithm(name, batch_norm_mlp(freeze_bn=True))
    run(made, batches((2, 3, 4)))
    made.finish()


class HasBatchNorm(ERM):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.networks["second"] = nn.BatchNorm1d(2).to(self.params[0])


def test_moving_statistics_of_further_networks_are_refused(monkeypatch):
    monkeypatch.setitem(algorithms._things, "HasBatchNorm", HasBatchNorm)
    with pytest.raises(UserError, match="switch such layers off where the method adds them"):
        algorithm("SWAD", mlp(), around="HasBatchNorm")


@pytest.mark.parametrize("name", ["SWAD", "BetaAverage"])
@pytest.mark.parametrize(
    ("around", "hparams", "message"),
    [
        ("SAN", {}, r"Unknown algorithm 'SAN'\. Did you mean 'SAM'\?"),
        ("SAM", {"rhoo": 1.0}, r"around_hparams of .*, those of SAM: 'rhoo' is not a hyperparameter here\. .*'rho'\?"),
        ("SAM", {"rho": -1.0}, r"around_hparams of .*, those of SAM: 'rho' should be a finite number ≥ 0\. Found -1"),
        ("SWAD", {}, r"cannot go around SWAD, which ends in an average of its own.*Choose one of ERM, .*SAM"),
        ("CLIPood", {}, r"cannot go around CLIPood, which ends in an average"),
        ("ZeroShot", {}, r"cannot go around ZeroShot, which trains nothing"),
    ],
)
def test_what_nothing_can_go_around_is_refused(name, around, hparams, message):
    with pytest.raises(UserError, match=message):
        algorithm(name, mlp(), around=around, around_hparams=hparams)


def test_swad_needs_evaluations_to_converge():
    def made(evaluations):
        return algorithms["SWAD"](Problem(mlp(), sgd, 3, "fp64", steps=100, evaluations=evaluations), n_converge=4)

    with pytest.raises(UserError, match=r"n_converge = 4 evaluations.*Found 3: .*100 steps\. Lower checkpoint_freq"):
        made(3)
    assert made(4).valley.n_converge == 4
    assert made(0).valley.n_converge == 4  # nobody trains to an end


def test_clipood_needs_text_features():
    model = mlp()
    model.class_features = False
    with pytest.raises(UserError, match=r"CLIPood needs a classifier whose rows are text features.*\"zero_shot\""):
        algorithm("CLIPood", model)


def test_zero_shot_warns_of_a_head_without_text(caplog):
    model = mlp()
    algorithm("ZeroShot", model)
    assert caplog.text == ""
    model.class_features = False
    algorithm("ZeroShot", model)
    assert "not made from the names of the classes" in caplog.text


def test_who_ends_in_an_average_says_so():
    """That is how `Around` knows them."""
    ending = {name for name, cls in algorithms.items() if cls.finish is not Algorithm.finish}
    assert ending == {"SWAD", "BetaAverage", "CLIPood"}
    assert CLIPood.recommended == {"weight_decay": 0.1}
