"""The cosine between the gradients of source and held-out domains: what it is of, and that the run does not feel it."""

import json
import math
import signal
import threading

import pytest
import torch
import torch.nn.functional as F
from helpers import STEPS, assert_same, ended, on_cpu, records, run, small_config, start, weights
from torch import nn

from domainbed_sage.config import make_config
from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.models import ImageSpec, Model, register_model
from domainbed_sage.training import train
from domainbed_sage.training.alignment import NAME, Alignment, undisturbed

HALF = (0.5, 0.5, 0.5)


class Counting(nn.Module):
    """Keeps a running sum of what it sees in a buffer that it makes anew each time."""

    seen: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen = self.seen + x.detach().mean()  # in evaluation, too: an inference tensor then
        return x * (1 + 0.01 * torch.tanh(self.seen))


def remembering(classes):
    """A network whose layers draw, and keep statistics in three ways."""
    layers = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), Counting(), nn.Conv2d(8, 8, 3, 2)]
    layers += [nn.BatchNorm2d(8, momentum=None), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5)]
    return Model(nn.Sequential(*layers), nn.Linear(32, len(classes)), ImageSpec(32, HALF, HALF), freeze_bn=False)


@pytest.fixture(params=[("ERM", "small_cnn"), ("SAGE", "small_cnn"), ("ERM", "own"), ("SAGE", "own")], ids="-".join)
def config(request, forget_plugins):
    algorithm, model = request.param
    register_model("own")(remembering)
    hparams = {"dropout": 0.5} if model == "small_cnn" else {"width": None}
    base = {"width": 8, "batch_size": 2, "lr": 3e-3} | ({"rho": 1e-3, "gamma": 0.1} if algorithm == "SAGE" else {})
    hparams = {k: v for k, v in (base | hparams).items() if v is not None}
    settings = {"dataset": "EmojiStyles", "test_envs": [0], "steps": STEPS, "checkpoint_freq": 3}
    return make_config(algorithm=algorithm, model=model, hparams=hparams, **settings)


def without(lines):
    return [{key: value for key, value in line.items() if key != NAME} for line in lines]


def test_the_run_does_not_feel_it(config, tmp_path):
    watched = run(config, tmp_path / "watched", log_alignment=True)
    plain = run(config, tmp_path / "plain")
    assert [-1 <= line[NAME] <= 1 for line in records(watched)] == [True] * 3
    assert without(records(watched)) == records(plain)
    ours, theirs = weights(watched), weights(plain)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert (watched / "run.json").read_bytes() == (plain / "run.json").read_bytes()
    assert {path.name for path in watched.iterdir()} == {path.name for path in plain.iterdir()}


def test_images_that_break_the_network_leave_no_trace_in_it():
    """A statistic that takes up a share 0 of infinity is not a number."""
    network = remembering(["a", "b"])
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    state = torch.get_rng_state()
    with undisturbed(network, torch.device("cpu")):
        network(torch.full((2, 3, 32, 32), math.inf))
        assert not torch.isfinite(network.featurizer[1].running_mean).all()
    assert {name: buffer.tolist() for name, buffer in network.named_buffers()} == {
        name: buffer.tolist() for name, buffer in before.items()
    }
    assert torch.equal(torch.get_rng_state(), state)


def flat_gradient(model, x, y):
    grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    return torch.cat([g.flatten() for g in grads])


def test_is_the_cosine_of_the_two_gradients(tmp_path):
    """Against one flat vector for each, of the same rows; a record is the mean over its steps."""
    config = small_config("ERM", test_envs=[1, 3])
    experiment = train.build(config, on_cpu(tmp_path))
    alignment, model = Alignment(experiment), experiment.algorithm.model
    batch, unseen = (stream[3].map(experiment.normalize) for stream in (experiment.stream, alignment.unseen))
    assert batch.sizes == unseen.sizes == (2, 2)
    expected = F.cosine_similarity(*(flat_gradient(model, b.x, b.y) for b in (batch, unseen)), dim=0)
    alignment.note(3, batch)
    assert alignment.record()[NAME] == pytest.approx(float(expected), rel=1e-4)
    assert alignment.record() == {}
    each = records(run(small_config("ERM", checkpoint_freq=1), tmp_path / "each", log_alignment=True))
    seldom = records(run(small_config("ERM"), tmp_path / "seldom", log_alignment=True))
    values = [line[NAME] for line in each]
    assert [line[NAME] for line in seldom] == pytest.approx([values[0], sum(values[1:4]) / 3, sum(values[4:6]) / 2])


def test_images_are_of_the_held_out_in_splits(tmp_path):
    experiment = train.build(small_config("ERM", test_envs=[1, 3]), on_cpu(tmp_path))
    unseen, splits = Alignment(experiment).unseen, experiment.evaluator.splits
    assert [env.name for env in unseen.sources] == [experiment.evaluator.environments[i].name for i in (1, 3)]
    assert [list(rows) for rows in unseen.indices] == [list(splits[i].in_) for i in (1, 3)]
    other = train.build(small_config("ERM", test_envs=[1, 3], seed=1), on_cpu(tmp_path))
    assert [list(rows) for rows in Alignment(other).unseen.rows(0)] != [list(rows) for rows in unseen.rows(0)]


def test_its_own_images_have_cosine_one(tmp_path, monkeypatch):
    experiment = train.build(small_config("SAGE"), on_cpu(tmp_path))
    alignment, batch = Alignment(experiment), experiment.stream[0]
    monkeypatch.setattr(alignment, "unseen", [batch])
    alignment.note(0, batch.map(experiment.normalize))
    opposite = DomainBatch(batch.x, (batch.y + 1) % 10, batch.sizes)
    monkeypatch.setattr(alignment, "unseen", [opposite])
    alignment.note(0, batch.map(experiment.normalize))
    same, other = (float(value) for value in alignment.values)
    assert same == pytest.approx(1, abs=1e-5)
    assert other < 0.99


def test_stopped_after_every_step_or_killed(tmp_path):
    config, stop = small_config("SAGE"), threading.Event()
    undisturbed_run = run(config, tmp_path / "undisturbed", log_alignment=True)
    stop.set()
    for step in range(STEPS - 1):
        with pytest.raises(Stopped):
            run(config, tmp_path / "stopped", stop=stop, log_alignment=True)
        if step in (1, 4):  # each is between two records
            process = start(config, tmp_path / "killed", die_after_step=step, log_alignment=True)
            assert ended(process) == -signal.SIGKILL
    for name in ("stopped", "killed"):
        assert_same(run(config, tmp_path / name, log_alignment=True), undisturbed_run)


def stopped_once(config, folder, **machine):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        run(config, folder, stop=stop, **machine)


def test_begun_or_ended_without_it(tmp_path):
    """A record has the mean over the steps that were watched, and none where none was."""
    config = small_config("ERM")
    values = [
        line[NAME] for line in records(run(small_config(checkpoint_freq=1), tmp_path / "each", log_alignment=True))
    ]
    for watched in (False, True):
        folder = tmp_path / str(watched)
        for _ in range(2):  # after steps 0 and 1; the second is between two records
            stopped_once(config, folder, log_alignment=watched)
        run(config, folder, log_alignment=not watched)
    late, early = (records(tmp_path / name) for name in ("False", "True"))
    assert NAME not in late[0]
    assert [line[NAME] for line in late[1:]] == pytest.approx([sum(values[2:4]) / 2, sum(values[4:6]) / 2])
    assert [line.get(NAME) for line in early] == [pytest.approx(values[0]), None, None]


def test_a_gradient_that_is_not_finite_stops_nothing(tmp_path, monkeypatch):
    """The held-out images decide nothing, not even whether the run goes on."""
    note = Alignment.note

    def broken(self, step, batch):
        note(self, step, batch)
        if step == 2:
            self.values[-1] = torch.tensor(math.nan)

    monkeypatch.setattr(Alignment, "note", broken)
    folder = tmp_path / "run"
    for _ in range(3):
        stopped_once(small_config("ERM"), folder, log_alignment=True)
    run(small_config("ERM"), folder, log_alignment=True)
    written = [json.loads(line)[NAME] for line in (folder / "results.jsonl").read_text().splitlines()]
    assert written[1] is None
    assert all(-1 <= value <= 1 for value in (written[0], written[2]))


def test_refused_where_there_is_no_held_out_gradient(tmp_path):
    tasks = make_config(dataset="Rooms", algorithm="ERM", steps=1, hparams={"width": 8})
    with pytest.raises(UserError, match="several tasks and no such domain"):
        run(tasks, tmp_path / "tasks", log_alignment=True)
    with pytest.raises(UserError, match="ZeroShot trains nothing"):
        run(small_config("ZeroShot", steps=1, hparams={"batch_size": 2}), tmp_path / "zero", log_alignment=True)
