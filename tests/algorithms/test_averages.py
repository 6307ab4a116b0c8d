"""Averages of weights: CLIPood's records from the authors' code, what goes around other methods, refusals."""

import json
import math
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
from domainbed_sage.core.errors import UserError
from domainbed_sage.models import Model
from domainbed_sage.models.clip import L2Normalize, ScaledLinear
from domainbed_sage.models.optimizers import sgd
from domainbed_sage.training.verify import _Replay

GOLDENS = Path(__file__).parents[1] / "data" / "goldens.npz"
INFO = json.loads(GOLDENS.with_suffix(".json").read_text())
ARRAYS = dict(np.load(GOLDENS))
AROUND = {"around": "SAM", "around_hparams": {"rho": 0.05}}


def recorded(name):
    return torch.from_numpy(ARRAYS[name])


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
