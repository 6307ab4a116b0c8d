"""The model of a finished run on every split: the recorded accuracies to the last bit, and single images by hand."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import on_cpu, run, small_config, strictly

from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import emoji
from domainbed_sage.data.specs import datasets
from domainbed_sage.data.splits import Split, split
from domainbed_sage.models import models
from domainbed_sage.training import assessment, finished
from domainbed_sage.training.assessment import HALVES, assess
from domainbed_sage.training.evaluate import Evaluator

KINDS = {
    "lazy": {},
    "full": {"evaluation": "full"},
    "two held out": {"test_envs": [1, 3], "trial_seed": 2, "holdout_fraction": 0.37},
    "dropout, squash": {"hparams": {"dropout": 0.5, "resize": "squash", "interpolation": "bilinear"}},
    "bf16": {"precision": "bf16"},
}


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    """A run's folder, and the splits that each call of `Evaluator.measure` was about."""
    with pytest.MonkeyPatch.context() as patch:
        measured = spy(patch)
        folder = run(small_config(**KINDS[request.param]), tmp_path_factory.mktemp("trained") / "run")
    return folder, measured


@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    return run(small_config(), tmp_path_factory.mktemp("lazy") / "run")


def spy(patch):
    measured, measure = [], Evaluator.measure

    def noted(self, predict, wanted):
        measured.append(sorted(wanted))
        return measure(self, predict, wanted)

    patch.setattr(Evaluator, "measure", noted)
    return measured


def last_record(folder):
    return strictly((folder / "results.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_accuracies_are_those_of_the_last_record(trained, num_workers):
    folder, record = trained[0], last_record(trained[0])
    results = assess(folder, on_cpu(folder, num_workers=num_workers)).results
    assert [(result.env, result.split) for result in results] == [(env, half) for env in range(4) for half in HALVES]
    compared = 0
    for result in results:
        recorded = record[f"env{result.env}_{result.split}_acc"]
        assert result.held_out == (result.env in record["args"]["test_envs"])
        assert not result.differs
        if recorded is None:
            assert math.isnan(result.recorded)
        else:
            assert result.scores.accuracy == result.recorded == recorded
            compared += 1
    assert compared == 8 if record["args"]["evaluation"] == "full" else compared == 4 + len(record["args"]["test_envs"])


def test_images_pass_in_the_batches_of_the_last_evaluation(trained, monkeypatch):
    """So that the last bits of the logits are the same, which decide between classes that are as good as equal."""
    folder, in_training = trained
    measured = spy(monkeypatch)
    assess(folder, on_cpu(folder))
    full = last_record(folder)["args"]["evaluation"] == "full"
    assert measured[: 1 if full else 2] == in_training[-1 if full else -2 :]
    assert sorted(pair for group in measured for pair in group) == [(env, half) for env in range(4) for half in HALVES]


def test_an_accuracy_that_is_not_the_recorded_one(lazy, tmp_path):
    for name in ("run.json", "done", "model.pkl"):
        (tmp_path / name).write_bytes((lazy / name).read_bytes())
    record, text = last_record(lazy), (lazy / "results.jsonl").read_text()
    found, key = record["env2_out_acc"], '"env2_out_acc": '
    (tmp_path / "results.jsonl").write_text(text.replace(f"{key}{found}", f"{key}{found + 1e-9}"))
    results = assess(tmp_path, on_cpu(tmp_path)).results
    assert [(result.env, result.split) for result in results if result.differs] == [(2, "out")]


def test_single_images_by_hand(lazy):
    """Key, label, logits, prediction and probability of images, computed one by one without our loaders."""
    config, dataset = small_config(), emoji.load_small()
    model = models["small_cnn"].build(dataset.classes, width=8)
    model.load_state_dict(torch.load(lazy / "model.pkl", weights_only=True)["model_dict"])
    found = assess(lazy, on_cpu(lazy), envs=["0", "3"], splits=["out"], keep_logits=True)
    assert found.classes == dataset.classes
    rng = random.Random(0)
    for result in found.results:
        environment = dataset.environments[result.env]
        rows = split(len(environment), result.env, config.trial_seed).out
        assert (result.environment, len(result.keys)) == (environment.name, len(rows))
        for at in rng.sample(range(len(rows)), 20):
            x = (environment.image(rows[at]).float() / 255 - 0.5) / 0.5  # 32 px: no resizing, no crop
            with torch.no_grad():
                logits = model.eval()(x[None])[0]
            np.testing.assert_allclose(result.logits[at], logits, atol=1e-5)
            assert result.keys[at] == environment.keys[rows[at]]
            assert result.labels[at] == environment.labels[rows[at]]
            assert result.predicted[at] == logits.argmax()
            assert result.probability[at] == pytest.approx(float(logits.softmax(0).max()), abs=1e-6)
        assert result.scores.accuracy == np.mean(result.predicted == result.labels)


def test_of_equal_logits_the_first_class_is_predicted(lazy, tmp_path):
    for path in lazy.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = torch.load(tmp_path / "model.pkl", weights_only=True)
    file["model_dict"]["classifier.weight"].zero_()
    file["model_dict"]["classifier.bias"].copy_(torch.tensor([0.0, 1, 0, 0, 1, 0, 0, 1, 0, 0]))
    torch.save(file, tmp_path / "model.pkl")
    (result,) = assess(tmp_path, on_cpu(tmp_path), ["1"], ["out"]).results
    assert set(result.predicted) == {1}
    assert result.probability == pytest.approx(np.e / (3 * np.e + 7))
    assert result.scores.accuracy == np.mean(result.labels == 1)


def test_only_what_is_asked_for_is_computed(lazy, monkeypatch):
    measured = spy(monkeypatch)
    found = assess(lazy, on_cpu(lazy), ["twemoji", "0", "twemoji"], ["in"])
    assert [(result.env, result.split) for result in found.results] == [(0, "in"), (3, "in")]
    assert measured == [[(0, "in")], [(3, "in")]]
    assert found.results[0].logits is None


@pytest.mark.parametrize("envs", [["0"], ["0", "1"]])
def test_a_split_without_images(lazy, monkeypatch, envs):
    """As of a small held-out environment."""
    load = finished.load

    def load_less(run, machine):
        experiment = load(run, machine)
        experiment.evaluator.splits[0] = Split(np.arange(3), np.arange(0))
        return experiment

    monkeypatch.setattr(finished, "load", load_less)
    results = assess(lazy, on_cpu(lazy), envs, splits=["out"], keep_logits=True).results
    assert [result.scores.images for result in results] == [0, 59][: len(envs)]
    assert math.isnan(results[0].scores.accuracy)
    assert results[0].logits.shape == (0, 10)


def test_the_run_is_left_as_it_is(lazy):
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in lazy.iterdir()}
    assess(lazy, on_cpu(lazy), ["0"])
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in lazy.iterdir()} == before


# Names of environments


@pytest.fixture
def pacs():
    return make_config(dataset="PACS", algorithm="ERM", model="small_cnn", test_envs=[0])


@pytest.mark.parametrize(
    ("envs", "expected"),
    [([], [0, 1, 2, 3]), (["S", "A"], [0, 3]), (["cartoon", "C", "1"], [1]), (["photo", "0"], [0, 2])],
)
def test_environments_by_label_folder_or_index(pacs, envs, expected):
    assert assessment._indices(pacs, envs) == expected


def test_a_label_is_stronger_than_a_folder_name_or_an_index(pacs, monkeypatch):
    spec = datasets["PACS"]
    named = replace(spec, environments=("3", "photo", "P", "S"))
    monkeypatch.setitem(datasets._things, "PACS", named)
    assert assessment._indices(pacs, ["3"]) == [0]
    assert assessment._indices(pacs, ["photo"]) == [1]


def test_unknown_environments(lazy):
    with pytest.raises(UserError) as caught:
        assess(lazy, on_cpu(lazy), ["mars", "noto", "4", "-1"])
    known = "Known: 0 = fluent_hc, 1 = noto, 2 = openmoji, 3 = twemoji."
    expected = [f"EmojiStyles has no environment {env!r}. {known}" for env in ("mars", "4", "-1")]
    assert list(caught.value.mistakes) == expected
