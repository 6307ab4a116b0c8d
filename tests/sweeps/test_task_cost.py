"""The cost of a step on several tasks, counted on fake tensors, against PyTorch's counts of a real step."""

import json
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.algorithms.solvers import solvers
from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.cli import main
from domainbed_sage.config import make_config
from domainbed_sage.data.multitask.specs import task_datasets
from domainbed_sage.data.multitask.stream import OneTask, TaskStream
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.models.task_models import task_models
from domainbed_sage.sweeps.cost import step_cost
from domainbed_sage.sweeps.estimate import cost, plan
from domainbed_sage.training.task_experiment import tasks_of

pytestmark = pytest.mark.usefixtures("in_one_thread")


MODELS = {"NYUv2": "mtan_segnet", "Cityscapes": "mtan_segnet", "MultiMNIST": "resnet_heads", "CelebA": "resnet_heads"}


def run_of(algorithm="ERM", solver="LS", *, dataset="Rooms", steps=1, checkpoint_freq=1, width=2, **hparams):
    model = MODELS.get(dataset, "scene_unet")
    own = {} if model == "resnet_heads" else {"width": width}
    return make_config(
        dataset=dataset,
        algorithm=algorithm,
        test_envs=["test"],
        model=model,
        steps=steps,
        checkpoint_freq=checkpoint_freq,
        hparams={"batch_size": 2, "solver": solver, **own, **hparams},
    )


@pytest.fixture(scope="module")
def rooms():
    return task_datasets["Rooms"].read(None)


def flops_of_real_step(run, data):
    """Of a second step on real scenes."""
    torch.manual_seed(0)
    kinds, train = data.kinds, data.train
    if only := run.hparams["only_task"]:
        kinds, train = {only: data.kinds[only]}, OneTask(data.train, list(data.kinds).index(only))
    tasks = tasks_of(kinds)
    build, optimizer, cls = task_models[run.model].build, optimizers[run.optimizer], algorithms[run.algorithm]
    network = build(tasks, **run.of(build))
    objectives = partial(
        TaskObjectives, tasks=tasks, heads=network.heads(network.code_shared), **run.of(TaskObjectives)
    )
    problem = Problem(network, partial(optimizer, **run.of(optimizer)), len(tasks), objectives=objectives)
    made = cls(problem, **run.of(cls))
    batch = TaskStream(train, tasks, run.hparams["batch_size"], False, 0)[0]
    made.update(batch)
    with FlopCounterMode(display=False) as counter:
        made.update(batch)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("algorithm", "solver", "hparams"),
    [
        *[("ERM", solver, {}) for solver in ("LS", "FairGrad", "GradDrop", "MoCo", "FAMO")],
        ("ERM", "LS", {"only_task": "depth"}),
        ("SAM", "MGDA", {}),
        ("SAMO", "MGDA", {}),
        ("F-MTL", "IMTL-G", {}),
        ("SAGE", "PCGrad", {}),
    ],
    ids=str,
)
def test_flops_of_a_step(rooms, algorithm, solver, hparams, caplog):
    run = run_of(algorithm, solver, **hparams)
    assert step_cost(run).flops == pytest.approx(flops_of_real_step(run, rooms), rel=0.05)
    assert "does not run without data" not in caplog.text


def test_solvers_that_share_a_count_do_cost_the_same(rooms):
    """Those that weigh losses, and those of Gram matrices; the others have counts of their own."""
    for first, *others in (("LS", "RLW", "UW"), ("MGDA", "CAGrad", "Nash-MTL")):
        expected = step_cost(run_of("ERM", first))
        for name in others:
            assert step_cost(run_of("ERM", name)) == expected
            assert expected.flops == pytest.approx(flops_of_real_step(run_of("ERM", name), rooms), rel=0.01)
    assert {step_cost(run_of("ERM", name)).flops for name in solvers} > {expected.flops}


@pytest.mark.parametrize(("dataset", "rows", "forward"), [("NYUv2", 2, 864e9), ("Cityscapes", 8, 772e9)])
def test_forward_passes_of_the_full_network(dataset, rows, forward):
    """Two FLOPs for a product and a sum in each convolution, by hand; the first layer has no backward to the image."""
    found = step_cost(run_of(dataset=dataset, batch_size=rows, width=64))
    assert found.pass_flops * rows / 3 == pytest.approx(forward, rel=0.01)
    assert found.flops == pytest.approx(found.pass_flops * rows, rel=1e-9)
    assert 5e9 < found.peak_bytes < 15e9


def test_passes_share_what_tasks_share():
    """K backward passes cost less than K passes, and no more than the bound (1 + 2 K) / 3 of a pass.

    SAMO's 2 K forward passes are a little more than 2 K / 3 passes, since there is no gradient of the images.
    """
    plain, gram, fmtl, samo = (
        step_cost(run_of(*words)).flops for words in ((), ("ERM", "MGDA"), ("F-MTL", "MGDA"), ("SAMO", "MGDA"))
    )
    assert 1.05 * plain < gram < 7 / 3 * plain
    assert 2 * gram < fmtl < 16 / 3 * plain
    assert fmtl < samo < 6.1 * plain


def test_images_of_epochs():
    """160 scenes in minibatches of 3: 54 steps an epoch, the last with one scene; 80 for every evaluation."""
    run = run_of(steps=110, checkpoint_freq=54, batch_size=3)
    found = cost(run)
    assert found["images_trained"] == 2 * 160 + 2 * 3
    assert found["images_evaluated"] == found["images_full_grid"] == 3 * 80
    assert found["passes"] == pytest.approx(110)


def test_passes_are_flops_of_passes():
    plain, gram = (cost(run_of("ERM", solver, steps=10)) for solver in ("LS", "MGDA"))
    assert gram["passes"] / plain["passes"] == pytest.approx(
        step_cost(run_of("ERM", "MGDA")).flops / step_cost(run_of()).flops
    )
    assert gram["images_trained"] == plain["images_trained"] == 20
    assert gram["images_worth"] > plain["images_worth"]


def test_rows_of_the_plan_have_their_solver():
    runs = [run_of("SAGE", "FairGrad"), run_of(), run_of(only_task="depth"), run_of(only_task="normal")]
    table = plan(runs)
    assert [method for _, method in table.index] == ["SAGE-FairGrad", "ERM-LS", "STL", "all"]
    assert table["runs"].tolist() == [1, 1, 2, 4]


@pytest.mark.parametrize(("dataset", "tasks"), [("MultiMNIST", 2), ("CelebA", 40)])
def test_images_with_labels(dataset, tasks):
    small = step_cost(run_of("ERM", "LS", dataset=dataset))
    assert len(task_datasets[dataset].kinds) == tasks
    assert small.flops > 1e8


def sweep(folder):
    text = "name: s\ndatasets: [Rooms]\nmodel: scene_unet\ntrials: 1\nsteps: 20\ncheckpoint_freq: 20\n"
    text += "hparams: {width: 2}\nalgorithms:\n  LS: {algorithm: ERM}\n  MGDA: {algorithm: ERM, solver: MGDA}\n"
    (folder / "s.yaml").write_text(text)
    return str(folder / "s.yaml")


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "plan", sweep(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "ERM-LS 1 20 160 160 80" in out
    assert "Images evaluated: 160. GB" in out
    assert "On several tasks, passes are FLOPs of the updates" in out
    assert main(["sweep", "plan", "s.yaml", "--json"]) == 0
    assert [row["algorithm"] for row in json.loads(capsys.readouterr().out)] == ["ERM-LS", "ERM-MGDA", "all"]
    assert main(["sweep", "plan", "s.yaml", "--device", "a100"]) == 0
    assert "ERM-MGDA" in capsys.readouterr().out.split("Hours of one NVIDIA A100")[1]
    assert main(["sweep", "plan", "s.yaml", "--measure"]) == 2
    assert "Rooms has several tasks" in " ".join(capsys.readouterr().err.split())
