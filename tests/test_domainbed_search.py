"""Random hyperparameters equal DomainBed's, by a transcription of its `hparams_registry.py`; ranges of one's own."""

import hashlib

import numpy as np
import pytest

from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Choice, Power
from domainbed_sage.data.specs import DatasetSpec, datasets
from domainbed_sage.models import Model, models, register_model


def seed_hash(*args):
    return int(hashlib.md5(str(args).encode("utf-8")).hexdigest(), 16) % (2**31)


def random_hparams(dataset, hparams_seed, trial_seed):
    """DomainBed's `random_hparams`, for ERM on images of 224 pixels."""
    hparams = {}

    def _hparam(name, random_val_fn):
        random_state = np.random.RandomState(seed_hash(seed_hash(hparams_seed, trial_seed), name))
        hparams[name] = random_val_fn(random_state)

    _hparam("resnet_dropout", lambda r: r.choice([0.0, 0.1, 0.5]))
    _hparam("lr", lambda r: 10 ** r.uniform(-5, -3.5))
    _hparam("weight_decay", lambda r: 10 ** r.uniform(-6, -2))
    if dataset == "DomainNet":
        _hparam("batch_size", lambda r: int(2 ** r.uniform(3, 5)))
    else:
        _hparam("batch_size", lambda r: int(2 ** r.uniform(3, 5.5)))
    return hparams


def drawn(dataset="PACS", model="timm", hparams_seed=1, trial_seed=0, **hparams):
    return make_config(
        dataset=dataset,
        algorithm="ERM",
        test_envs=[0],
        model=model,
        hparams=hparams,
        hparams_seed=hparams_seed,
        trial_seed=trial_seed,
    ).hparams


@pytest.mark.parametrize("dataset", ["PACS", "VLCS", "OfficeHome", "TerraIncognita", "DomainNet"])
def test_the_search_is_domainbeds(dataset):
    for trial_seed in range(3):
        for hparams_seed in range(1, 20):
            ours = drawn(dataset, hparams_seed=hparams_seed, trial_seed=trial_seed)
            theirs = random_hparams(dataset, hparams_seed, trial_seed)
            ours["resnet_dropout"] = ours.pop("dropout")
            assert {name: ours[name] for name in theirs} == theirs


def test_golden_numbers():
    """Of hparams_seed 7, trial_seed 0; the name dropout would draw 0."""
    pacs, domain_net = (drawn(dataset, hparams_seed=7) for dataset in ("PACS", "DomainNet"))
    found = [pacs["dropout"], pacs["batch_size"], domain_net["batch_size"]]
    assert found == [0.1, 12, 11]
    assert pacs["lr"] == domain_net["lr"] == pytest.approx(0.0001336817295222666, rel=1e-12)


def test_defaults_are_not_drawn():
    assert [drawn(dataset, hparams_seed=0)["batch_size"] for dataset in ("PACS", "DomainNet")] == [32, 32]


def test_what_is_given_wins_over_the_datasets_range():
    assert drawn("DomainNet", batch_size=7)["batch_size"] == 7


def test_clips_learning_rates_lie_around_its_recommended_one():
    rates = [drawn(model="clip_vit_b16", hparams_seed=seed, weights="none")["lr"] for seed in range(1, 60)]
    assert 1e-7 < min(rates) < 4e-7
    assert 25e-7 < max(rates) < 1e-5
    assert models["clip_vit_b16"].recommended["lr"] == 1e-6


@pytest.fixture
def own(monkeypatch):
    """A model and a dataset with ranges of their own."""
    for registry in (datasets, models):
        monkeypatch.setattr(registry, "_things", dict(registry._things))
    ranges = {"batch_size": Choice(101, 102), "weight_decay": Choice(0.25, 0.75), "beta1": Choice(0.3, 0.4)}
    spec = DatasetSpec("Own", ("a", "b", "c"), 2, lambda _: None, steps=1, checkpoint_freq=1, search=ranges)
    datasets.register("Own")(spec)

    @register_model("own", search={"batch_size": Choice(201, 202), "momentum": Choice(0.1, 0.2)}, lr=1e-3)
    def build(classes) -> Model:
        """Not built here."""
        raise NotImplementedError


def test_the_models_range_wins_over_the_datasets(own):
    """Also of a hyperparameter that has none otherwise; a range of what this run does not have means nothing."""
    found = [drawn("Own", "own", hparams_seed=seed) for seed in range(1, 30)]
    values = [{h[name] for h in found} for name in ("batch_size", "weight_decay", "beta1")]
    assert values == [{201, 202}, {0.25, 0.75}, {0.3, 0.4}]
    assert {drawn("Own", hparams_seed=seed)["batch_size"] for seed in range(1, 30)} == {101, 102}
    assert "momentum" not in found[0]


def test_a_range_outside_of_the_bounds_is_refused(own):
    register_model("bad", search={"lr": Choice(-1.0)})(lambda classes: None)
    with pytest.raises(UserError, match=r"'lr' should be a finite number > 0\. Found -1\.0"):
        drawn("Own", "bad")


def test_what_is_no_range_is_refused_when_it_is_registered(own):
    expected = "The random-search range of 'lr' of {} should be a Power, Uniform or Choice, .* Found \\(1, 2\\)"
    with pytest.raises(UserError, match=expected.format("model bad")):
        register_model("bad", search={"lr": (1, 2)})(lambda classes: None)
    with pytest.raises(UserError, match=expected.format("dataset Bad")):
        DatasetSpec("Bad", ("a", "b"), 2, lambda _: None, search={"lr": (1, 2)})
    assert "bad" not in models


def test_a_range_has_the_seed_of_the_hyperparameters_name_in_domainbed(own):
    """Whatever range it is, the same uniform number in [0, 1) is behind it."""
    register_model("wide", search={"weight_decay": Power(10, -12, -4)})(lambda classes: None)
    narrow, wide = (np.log10(drawn(model=model, hparams_seed=5)["weight_decay"]) for model in ("timm", "wide"))
    assert (narrow + 6) / 4 == pytest.approx((wide + 12) / 8)
