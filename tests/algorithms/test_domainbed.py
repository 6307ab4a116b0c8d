"""Algorithm classes of DomainBed's shape: trained on our data and models, restarted, and refused where they differ."""

import math
import random

import pytest
import torch
from helpers import assert_same, on_cpu, records, run, small_config, weights
from reference import domainbed_kind
from torch import nn

from domainbed_sage.algorithms import algorithms
from domainbed_sage.algorithms.domainbed import adapt
from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Power, declared
from domainbed_sage.training import train
from domainbed_sage.training.assessment import assess

pytestmark = pytest.mark.usefixtures("forget_plugins")
SETTING = {"lr": 1e-3, "batch_size": 4}


@pytest.mark.parametrize("cls", [domainbed_kind.ERM, domainbed_kind.Lists])
def test_its_erm_is_ours_bit_for_bit(tmp_path, cls):
    adapt(cls, "Theirs")
    theirs = run(small_config("Theirs", hparams=SETTING), tmp_path / "theirs")
    ours = run(small_config("ERM", hparams=SETTING), tmp_path / "ours")
    assert [r["loss"] for r in records(theirs)] == [r["loss"] for r in records(ours)]
    stored, expected = weights(theirs), weights(ours)
    assert all(torch.equal(stored[f"made.{name}"], weight) for name, weight in expected.items())


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_it_restarts_bit_for_bit(tmp_path, monkeypatch, after):
    adapt(domainbed_kind.Everything, hparams={"lambda": 0.5})
    config = small_config("Everything", hparams={**SETTING, "lambda_": 0.7})
    whole = run(config, tmp_path / "whole")
    step = train.Loop._step
    with monkeypatch.context() as patch:
        patch.setattr(train.Loop, "_step", lambda loop, at, batch: step(loop, at, batch) or loop.stop.set())
        for _ in range(after):
            with pytest.raises(train.Stopped):
                train.run(config, on_cpu(tmp_path / "parts"))
    random.seed(99)
    train.run(config, on_cpu(tmp_path / "parts"))
    assert_same(tmp_path / "parts", whole)
    assert math.isfinite(records(whole)[-1]["history"])


def test_a_finished_run_can_be_evaluated(tmp_path):
    adapt(domainbed_kind.Everything, hparams={"lambda": 0.5})
    folder = run(small_config("Everything", hparams=SETTING, evaluation="full"), tmp_path)
    assert not any(result.differs for result in assess(folder, on_cpu(folder)).results)


def test_networks_of_its_own(tmp_path):
    adapt(domainbed_kind.ERM, "Own", network="own")
    names = weights(run(small_config("Own", hparams=SETTING, steps=1), tmp_path))
    assert names["made.featurizer.2.weight"].shape == (5, 12)


def test_hyperparameters():
    values = {"lambda": (1.0, Power(10, -1, 1)), "my_depth": 3, "beta1": 0.5, "lr": (1e-4, Power(10, -5, -3))}
    cls = adapt(domainbed_kind.ERM, "Own", hparams=values, passes_per_step=2, paper="Doe, ICLR 2020")
    assert {name: h.default for name, h in declared(cls).items()} == {"lambda_": 1.0, "my_depth": 3}
    assert declared(cls)["lambda_"].search == Power(10, -1, 1)
    assert (cls.passes(10, {}), cls.paper) == (20, "Doe, ICLR 2020")
    made = make_config(dataset="EmojiStyles", algorithm="Own", test_envs=[0], hparams={"my_depth": 4})
    assert {k: made.hparams[k] for k in ("lambda_", "my_depth", "beta1", "lr")} == {
        "lambda_": 1.0,
        "my_depth": 4,
        "beta1": 0.5,
        "lr": 1e-4,
    }
    with pytest.raises(UserError, match="my_depth"):
        make_config(dataset="EmojiStyles", algorithm="Own", test_envs=[0], hparams={"my_depth": "deep"})


def test_what_it_finds_in_its_dictionary(tmp_path):
    found = {}

    class Own(domainbed_kind.ERM):
        def __init__(self, input_shape, num_classes, num_domains, hparams):
            found.update(hparams, shape=input_shape, classes=num_classes, domains=num_domains)
            super().__init__(input_shape, num_classes, num_domains, hparams)

    adapt(Own, hparams={"lambda": 2.0})
    run(small_config("Own", hparams={**SETTING, "lambda_": 3.0}, steps=1), tmp_path)
    assert (found["shape"], found["classes"], found["domains"]) == ((3, 32, 32), 10, 3)
    assert (found["lambda"], found["lr"], found["batch_size"], found["nonlinear_classifier"]) == (3.0, 1e-3, 4, False)


def refused(cls, *found):
    with pytest.raises(UserError) as error:
        adapt(cls, "Refused")
    assert all(text in str(error.value) for text in found)
    assert "Refused" not in algorithms


def test_another_shape_is_named():
    class NoUpdate(nn.Module):
        def __init__(self, input_shape, num_classes, num_domains, hparams):
            super().__init__()

        def predict(self, x):
            return x

    class NoPredict(nn.Module):
        def __init__(self, input_shape, num_classes, num_domains, hparams):
            super().__init__()

    class Fewer(domainbed_kind.ERM):
        def __init__(self, input_shape, num_classes):
            super().__init__(input_shape, num_classes, 1, {})

    class Three(domainbed_kind.ERM):
        def update(self, x, y, z):  # type: ignore[override]
            return {}

    refused(NoUpdate, "NoUpdate should have update(minibatches, unlabeled=None) or update(x, y, **kwargs)", "no such")
    refused(NoPredict, "NoPredict should have predict(x)", "Found no such method")
    refused(Fewer, "__init__(input_shape, num_classes, num_domains, hparams)", "Found __init__(self, input_shape, num")
    refused(Three, "Found update(self, x, y, z)")
    refused(domainbed_kind.Average, "a torch.nn.Module. Found <class")
    refused(3, "Found 3")


def test_an_update_that_returns_no_dictionary(tmp_path):
    class Own(domainbed_kind.ERM):
        def update(self, minibatches, unlabeled=None):
            return 3.0

    adapt(Own)
    with pytest.raises(UserError, match=r"Own\.update should return a dict of numbers to log\. Found 3\.0"):
        run(small_config("Own"), tmp_path)


def test_base_checks_come_first(tmp_path):
    """Fewer domains or rows than a method needs, before anything is trained."""
    cls = adapt(domainbed_kind.ERM, "Own")
    cls.min_domains, cls.min_rows = 4, 1
    with pytest.raises(UserError, match=r"Own needs at least 4 source domains\. Found 3\."):
        run(small_config("Own"), tmp_path / "a")
    cls.min_domains, cls.min_rows = 3, 5
    with pytest.raises(
        UserError, match=r"at least 5 rows of every source domain in a minibatch \(batch_size\)\. Found 4"
    ):
        run(small_config("Own", hparams=SETTING), tmp_path / "b")
    cls.min_rows = 4
    run(small_config("Own", hparams=SETTING, steps=1), tmp_path / "c")


def test_a_head_that_is_not_linear():
    from algorithm_cases import IMAGE

    from domainbed_sage.algorithms import Problem
    from domainbed_sage.models import Model

    model = Model(nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 2)), IMAGE)
    with pytest.raises(UserError, match=r"Fishr needs a linear classifier.* Found Sequential"):
        Problem(model, torch.optim.Adam, 2).classes_and_features("Fishr")
    assert Problem(Model(nn.Linear(4, 3), nn.Linear(3, 2), IMAGE), torch.optim.Adam, 2).classes_and_features("x") == (
        2,
        3,
    )
