"""Runs on several tasks: the loop, the records and the restarts are those of domain generalization."""

import math
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import helpers
import pytest
import torch
from helpers import assert_same, on_cpu, records, run
from torch import nn

from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.config import make_config, read_config
from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.data.multitask import rooms
from domainbed_sage.data.multitask.base import task_datasets
from domainbed_sage.data.multitask.samples import ArraySamples
from domainbed_sage.data.multitask.stream import EvaluationBatches, OneTask, TaskStream
from domainbed_sage.models import ModelSpec
from domainbed_sage.models.multitask import MultiTaskModel
from domainbed_sage.models.task_models import task_models
from domainbed_sage.tasks import Depth, Normals, Segmentation
from domainbed_sage.training import assessment, finished, train

STEPS = 6
TASKS = (Segmentation(13), Depth(), Normals("normal"))


class Light(MultiTaskModel):
    """A convolution with BatchNorm that the tasks share, and one for each."""

    def __init__(self, outputs):
        super().__init__(outputs, (3, 8, 8))
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.pred = nn.ModuleList(nn.Conv2d(6, output.channels, 1) for output in outputs)

    def raw(self, x):
        z = self.trunk(x)
        return [head(z) for head in self.pred]


@contextmanager
def few_rooms():
    """Five rooms to learn from and three to report on, in place of the usual ones, and a light network."""
    usual = task_datasets["Rooms"]
    few = replace(usual, load=lambda root: rooms.load(5, 3, size=(32, 32)), counts={"train": 5, "test": 3})
    task_datasets._things["Rooms"] = few
    task_models.register("light")(ModelSpec(lambda outputs: Light(outputs)))
    yield
    task_datasets._things["Rooms"] = usual
    del task_models._things["light"]


@pytest.fixture(scope="module", autouse=True)
def small_rooms():
    with few_rooms():
        yield


def config(algorithm="SAGE", solver="FairGrad", *, steps=STEPS, **hparams):
    hparams = {"batch_size": 2, "solver": solver, **hparams}
    fields = {"dataset": "Rooms", "model": "light", "checkpoint_freq": 3}
    return make_config(algorithm=algorithm, steps=steps, hparams=hparams, **fields)


CASES = [("SAGE", "FairGrad"), ("ERM", "UW"), ("ERM", "FAMO"), ("SAMO", "MoCo"), ("F-MTL", "IMTL-G")]


@pytest.mark.parametrize(("algorithm", "solver"), CASES)
def test_stopped_after_every_step(tmp_path, algorithm, solver):
    whole = run(config(algorithm, solver, lr_decay_epochs=1), tmp_path / "whole")
    stop = threading.Event()
    stop.set()
    for step in range(STEPS - 1):
        with pytest.raises(Stopped, match=f"after step {step};"):
            run(config(algorithm, solver, lr_decay_epochs=1), tmp_path / "run", stop=stop)
    assert_same(run(config(algorithm, solver, lr_decay_epochs=1), tmp_path / "run", stop=stop), whole)


def dies(chosen, folder, step):
    helpers._die_after_step(step)
    with few_rooms():
        run(chosen, folder)


def test_killed_in_any_epoch(tmp_path):
    """DWA by epochs takes note of each end of an epoch once, also where the process was killed right before it."""
    chosen = config("ERM", "DWA", solver_hparams={"reading": "epoch"})
    for step in (1, 2, 3):
        assert helpers.ended(helpers._start(dies, chosen, tmp_path / "run", step), 120) == -signal.SIGKILL
    assert_same(run(chosen, tmp_path / "run", num_workers=2), run(chosen, tmp_path / "whole"))


def test_mtan_learns_by_sage():
    """The usual network of the dataset, in a few steps."""
    chosen = make_config(dataset="Rooms", algorithm="SAGE", hparams={"width": 1, "solver": "MGDA"})
    assert chosen.model == "mtan_segnet"
    made = train.build(chosen, on_cpu(Path()))
    heads = {
        name for head in made.algorithm.problem.model.heads(made.algorithm.problem.model.code_shared) for name in head
    }
    assert heads == {n for n, _ in made.algorithm.model.named_parameters() if n.startswith("pred_task")}
    before = [p.clone() for p in made.algorithm.params]
    made.algorithm.update(made.stream[0])
    assert not all(torch.equal(p, q) for p, q in zip(made.algorithm.params, before, strict=True))


NEED_MORE = [
    *("IRM", "DANN", "CDANN", "MMD", "CORAL", "RSC", "IIB", "Fish", "GGA", "SD", "Mixup", "MLDG", "SelfReg", "Fishr"),
    *("CLIPood", "ZeroShot"),
]


def one_step(chosen):
    made = train.build(chosen, on_cpu(Path()))
    made.algorithm.update(made.stream[0])


@pytest.mark.parametrize("algorithm", NEED_MORE)
def test_algorithms_that_need_more_than_losses_are_refused(algorithm):
    with pytest.raises(UserError, match=r"Several tasks have no .*: it is one of domain generalization alone. Choose"):
        one_step(config(algorithm, "LS"))


def test_tasks_have_no_classes():
    batch = TaskStream(rooms.load(2, 1, size=(32, 32)).train, TASKS, 2, False, 0)[0]
    with pytest.raises(UserError, match="no single class of an image"):
        _ = batch.y


def test_records(tmp_path):
    lines = records(run(config(), tmp_path / "run"))
    assert [line["step"] for line in lines] == [2, 5]  # the last step of every epoch of three
    metrics = [name for name in lines[0] if name.startswith("test_")]
    assert {name.split("_")[1] for name in metrics} == {"segmentation", "depth", "normal"}
    assert set(lines[0]["higher_is_better"]) == set(metrics)
    assert lines[0]["args"]["task"] == "multi_task"
    assert lines[0]["environments"] == ["train", "test"]
    assert lines[0]["data"]["variant"].startswith("5 train, 3 test, ")
    assert "agreement" in lines[0]


def test_who_only_loads_a_model_measures_no_trivial_predictor(tmp_path, monkeypatch):
    folder = run(config(), tmp_path / "run")
    assert records(folder)[-1]["trivial"].keys() == records(folder)[-1]["higher_is_better"].keys()
    monkeypatch.setattr("domainbed_sage.training.trivial.measured", None)
    finished.load(finished.read(folder), on_cpu(tmp_path))


def test_the_numbers_are_those_of_the_meters(tmp_path):
    folder = run(config(), tmp_path / "run")
    made = train.build(config(), on_cpu(tmp_path))
    made.algorithm.model.load_state_dict(torch.load(folder / "model.pkl", weights_only=True)["model_dict"])
    model, data = made.algorithm.model.eval(), rooms.load(5, 3, size=(32, 32)).test
    meters = [task.meter() for task in TASKS]
    with torch.no_grad():
        for rows in ([0, 1], [2]):
            predictions = model(torch.stack([data[row][0] for row in rows]))
            for k, (meter, prediction) in enumerate(zip(meters, predictions, strict=True)):
                meter.update(prediction, torch.stack([data[row][1][k] for row in rows]))
    for task, meter in zip(TASKS, meters, strict=True):
        for name, value in meter.compute().items():
            recorded = records(folder)[-1][f"test_{task.name}_{name}"]  # null stands for NaN
            assert pytest.approx(value, rel=1e-5, nan_ok=True) == (math.nan if recorded is None else recorded)


def test_one_task_alone(tmp_path):
    line = records(run(config("ERM", "LS", only_task="depth"), tmp_path / "run"))[-1]
    assert {name.split("_")[1] for name in line if name.startswith("test_")} == {"depth"}
    with pytest.raises(UserError, match=r"Rooms has no task 'colour' \(only_task\). Known: depth, normal, seg"):
        train.run(config(only_task="colour"), on_cpu(tmp_path / "other"))


def test_learning_rates_fall_by_epochs(tmp_path):
    made = train.build(config("ERM", "UW", lr=1e-2, lr_decay=0.5, lr_decay_epochs=2), on_cpu(tmp_path))
    objectives, optimizer = made.algorithm.objectives, made.algorithm.optimizer
    assert isinstance(objectives, TaskObjectives)
    (own,) = objectives.solver.scheduled
    seen = {}
    for step in range(13):  # three steps an epoch
        objectives.begins(step)
        seen[step] = (optimizer.param_groups[0]["lr"], own.param_groups[0]["lr"])
    assert [seen[step] for step in (0, 5, 6, 11, 12)] == [
        *[(1e-2, 0.025)] * 2,
        *[(5e-3, 0.0125)] * 2,
        (2.5e-3, 0.00625),
    ]


def test_epochs_pass_every_sample_once_in_an_order_of_their_own():
    stream = TaskStream(rooms.load(5, 1, size=(32, 32)).train, TASKS, 2, augment=False, seed=3)
    epochs = [sorted(row for step in range(start, start + 3) for row in stream.rows(step)) for start in (0, 3)]
    assert epochs == [list(range(5))] * 2
    orders = [[row for step in range(start, start + 3) for row in stream.rows(step)] for start in (0, 3, 6, 9)]
    assert len(set(map(tuple, orders))) > 1
    assert len(stream.rows(2)) == 1
    assert [len(batch.x) for batch in stream.batches(0, 3)] == [2, 2, 1]


def test_augmentation_moves_image_and_targets_and_repeats():
    data = rooms.load(4, 1, size=(32, 32)).train
    plain, moved = (TaskStream(data, TASKS, 4, augment=augment, seed=0) for augment in (False, True))
    a, b, again = plain[0], moved[0], moved[0]
    assert not torch.equal(a.x, b.x)
    assert all(torch.equal(x, y) for x, y in zip((b.x, *b.targets), (again.x, *again.targets), strict=True))
    assert all(not torch.equal(x, y) for x, y in zip(a.targets, b.targets, strict=True))


def test_samples_of_labels_are_not_cropped():
    images = torch.rand(4, 3, 8, 8)
    stream = TaskStream(ArraySamples(images, [torch.arange(4)]), [], 4, augment=True, seed=0)
    assert torch.equal(stream[0].x, images[stream.rows(0)])


def test_evaluation_is_in_order_and_one_task_is_that_one():
    images = torch.rand(5, 3, 8, 8)
    samples = ArraySamples(images, [torch.arange(5), torch.arange(5, 10)])
    batches = [EvaluationBatches(OneTask(samples, 1), 2)[i] for i in range(len(EvaluationBatches(samples, 2)))]
    assert torch.equal(torch.cat([batch.targets[0] for batch in batches]), torch.arange(5, 10))
    assert torch.equal(torch.cat([batch.x for batch in batches]), images)
    assert [len(batch.targets) for batch in batches] == [1, 1, 1]


def test_what_is_held_out_and_for_how_long():
    usual = make_config(dataset="Rooms", algorithm="ERM")
    assert (usual.held_out, usual.source_envs, usual.model) == ("test", (0,), "mtan_segnet")
    assert (usual.steps, usual.checkpoint_freq) == (200, 1)  # five samples in batches of 8, 200 epochs
    assert (usual.hparams["lr"], usual.hparams["batch_size"]) == (1e-4, 8)
    assert make_config(dataset="Rooms", algorithm="ERM", hparams={"batch_size": 2}).steps == 600
    assert read_config(usual.model_dump(mode="json")) == usual
    with pytest.raises(UserError, match=r"test_envs should be test for Rooms. Found \['train'\]"):
        make_config(dataset="Rooms", algorithm="ERM", test_envs=["train"])


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"solver": "Fair"}, r"Unknown solver 'Fair'"),
        ({"solver_hparams": {"alpha": 2.0}}, r"solver_hparams of LS: 'alpha' is not a hyperparameter"),
        ({"corrupt": "error"}, r"'corrupt' is not a hyperparameter"),
        ({"batch_size": 0}, r"'batch_size' should be"),
        ({"batch_size": "x"}, r"'batch_size' should be"),
    ],
)
def test_mistakes_in_a_description(hparams, message):
    with pytest.raises(UserError, match=rf"(?s){message}"):
        make_config(dataset="Rooms", algorithm="ERM", hparams=hparams)


def test_solvers_are_recorded_with_all_their_hyperparameters():
    made = make_config(dataset="Rooms", algorithm="ERM", hparams={"solver": "CAGrad"})
    assert made.hparams["solver_hparams"]["c"] == 0.4


def test_images_that_are_correct_are_not_known(tmp_path):
    with pytest.raises(UserError, match="classified correctly is known of domain generalization alone"):
        run(config(), tmp_path / "run", keep_correctness=True)


def test_a_diverging_run_stops(tmp_path):
    with pytest.raises(UserError, match="not finite"):
        run(config("ERM", "LS", lr=1e30), tmp_path / "run")


def test_arithmetic_is_that_of_the_description(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    train.build(config(), on_cpu(tmp_path))
    assert torch.backends.cudnn.deterministic


def test_single_predictions_are_not_written(tmp_path):
    folder = run(config(), tmp_path / "run")
    with pytest.raises(UserError, match="learned the tasks of Rooms"):
        assessment.assess(folder, on_cpu(tmp_path))
