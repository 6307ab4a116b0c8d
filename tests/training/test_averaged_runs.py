"""Runs that end in an average of weights: records, model file, and restarts."""

import signal
import threading

import pytest
import torch
import torch.nn.functional as F
from helpers import STEPS, assert_same, ended, on_cpu, records, run, small_config, start, weights
from torch import nn

from domainbed_sage.algorithms.averages import beta_weight
from domainbed_sage.config import read_config
from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.models import ImageSpec, Model
from domainbed_sage.models.clip import ScaledLinear
from domainbed_sage.models.registry import register
from domainbed_sage.training import train

pytestmark = pytest.mark.usefixtures("forget_plugins", "text_headed")

AROUND = {"around": "SAGE", "around_hparams": {"rho": 1e-3, "gamma": 0.1}}
ALWAYS = {"n_converge": 1, "n_tolerance": 1, "tolerance_ratio": 1e6}  # every segment but the first
DIES = {"n_converge": 1, "n_tolerance": 1, "tolerance_ratio": -0.5}
RUNS = {  # settings, and what the last record says of its weights
    "SWAD": (AROUND | ALWAYS, "average of steps 1 … 5"),
    "SWAD dies": (AROUND | DIES, "average of steps 0 … 0"),
    "BetaAverage": (AROUND, "Beta moving average of steps 0 … 6"),
    "CLIPood": ({"temperature": 10.0, "lr": 1e-3}, "Beta moving average of steps 0 … 6"),
}


@pytest.fixture
def text_headed():
    """A small network whose head passes for one made from text features."""

    @register("text_headed")
    def text_headed(classes, *, width: int = 8):
        head = ScaledLinear(width, len(classes), 10.0, bias=False)
        head.weight.data = F.normalize(head.weight.data, dim=1)
        featurizer = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, width))
        return Model(featurizer, head, ImageSpec(32, (0.5,) * 3, (0.5,) * 3), class_features=True)


def config_of(name, **changes):
    hparams, _ = RUNS[name]
    model = {"model": "text_headed"} if name == "CLIPood" else {}
    return small_config(name.split()[0], checkpoint_freq=1, hparams=hparams, **(model | changes))


def path_of(config, folder, monkeypatch):
    """The finished run, its first weights, and those after every step, buffers included."""
    path, step = [], train.Loop._step

    def spy(self, at, batch):
        path.extend([] if path else [{k: v.clone() for k, v in self.algorithm.model.state_dict().items()}])
        step(self, at, batch)
        path.append({k: v.clone() for k, v in self.algorithm.model.state_dict().items()})

    monkeypatch.setattr(train.Loop, "_step", spy)
    run(config, folder)
    monkeypatch.undo()
    return path


@pytest.mark.parametrize("name", RUNS)
def test_the_last_record_and_the_model_are_the_averages(tmp_path, monkeypatch, name):
    config = config_of(name, evaluation="full")
    path, found = path_of(config, tmp_path, monkeypatch), records(tmp_path)
    shares = {
        "SWAD": [0.0, 0.0] + [1.0] * 5,
        "SWAD dies": [0.0, 1.0] + [0.0] * 5,
    }.get(name, [beta_weight(t, STEPS, 0.5) for t in range(STEPS + 1)])
    for key, value in weights(tmp_path).items():
        mean = sum(share * there[key].double() for share, there in zip(shares, path, strict=True)) / sum(shares)
        torch.testing.assert_close(value.double(), mean, rtol=0, atol=1e-6)
    assert [line.get("evaluated") for line in found] == [None] * (STEPS - 1) + [RUNS[name][1]]
    experiment = train.build(config, on_cpu(tmp_path))
    model = experiment.algorithm.model
    for line, state in zip(found, [*path[1:STEPS], weights(tmp_path)], strict=True):
        model.load_state_dict(state)
        model.eval()
        measured = experiment.evaluator.full(model)
        assert {key: value for key, value in measured.items() if line[key] != value} == {}


def test_the_dead_valley_repeats_its_last_numbers(tmp_path):
    run(config_of("SWAD dies"), tmp_path)
    losses = [line["loss"] for line in records(tmp_path)]
    assert losses[1] != losses[0]
    assert losses[2:] == [losses[1]] * 4


@pytest.mark.parametrize("name", RUNS)
def test_stopped_after_every_step(tmp_path, name):
    stop = threading.Event()
    stop.set()
    for step in range(STEPS - 1):
        with pytest.raises(Stopped, match=rf"after step {step}"):
            run(config_of(name), tmp_path / "run", stop=stop)
    run(config_of(name), tmp_path / "run", stop=stop)
    assert_same(tmp_path / "run", run(config_of(name), tmp_path / "undisturbed"))


@pytest.mark.parametrize("name", ["SWAD", "BetaAverage"])
def test_killed_in_the_middle(tmp_path, name):
    for step in (2, 4):
        assert ended(start(config_of(name), tmp_path / "run", die_after_step=step)) == -signal.SIGKILL
    assert_same(run(config_of(name), tmp_path / "run"), run(config_of(name), tmp_path / "undisturbed"))


def test_too_few_evaluations_are_told_before_training(tmp_path):
    config = small_config("SWAD")
    with pytest.raises(UserError, match=r"n_converge = 3 evaluations.*Found 2: one every checkpoint_freq of 6 steps"):
        run(config, tmp_path)
    assert not (tmp_path / "results.jsonl").exists()


def test_the_other_algorithm_is_part_of_the_description():
    """With all its hyperparameters, so that a later default does not change what a run was."""
    config = small_config("SWAD", hparams={"around": "SAM"})
    assert config.hparams["around_hparams"] == {"rho": 0.05}
    assert config.run_id == small_config("SWAD", hparams={"around": "SAM", "around_hparams": {"rho": 0.05}}).run_id
    values = config.model_dump(mode="json")
    assert read_config(values) == config
    values["hparams"]["around"] = "SAGM"
    values["hparams"]["around_hparams"] = {"radius": 0.1}
    with pytest.raises(UserError, match=r"around_hparams of SWAD, those of SAGM: 'radius' is not"):
        read_config(values)
    message = r"(?s)2 mistakes.*checkpoint_freq should be.*around_hparams of SWAD, those of SAM: 'rhoo' is not"
    with pytest.raises(UserError, match=message):
        small_config("SWAD", checkpoint_freq=0, hparams={"around": "SAM", "around_hparams": {"rhoo": 1.0}})
