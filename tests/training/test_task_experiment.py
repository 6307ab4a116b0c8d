"""The parts of a run on several tasks are those of its description."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from helpers import on_cpu

from domainbed_sage.config import make_config
from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.multitask import rooms
from domainbed_sage.data.multitask.base import Kind, task_datasets
from domainbed_sage.data.multitask.stream import OneTask
from domainbed_sage.tasks import Classification, Depth, Normals, Segmentation
from domainbed_sage.training import train, trivial
from domainbed_sage.training.task_evaluator import TaskEvaluator
from domainbed_sage.training.task_experiment import tasks_of

DATA = replace(rooms.load(3, 2, size=(32, 32)), notes=("a note",))


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Builds runs of four steps on three rooms to learn from and two others."""
    few = replace(task_datasets["Rooms"], load=lambda root: DATA, counts={"train": 3, "test": 2})
    monkeypatch.setitem(task_datasets._things, "Rooms", few)

    def made(seed=0, workers=0, precision="fp32", **hparams):
        hparams = {"width": 1, "batch_size": 2, "augment": "none", **hparams}
        fields = {"dataset": "Rooms", "model": "scene_unet", "steps": 4, "checkpoint_freq": 2}
        config = make_config(algorithm="ERM", seed=seed, precision=precision, hparams=hparams, **fields)
        return train.build(config, on_cpu(tmp_path, num_workers=workers))

    return made


def test_weights_and_minibatches_depend_on_the_seed_alone(build):
    """With crops: without them, few rooms often come in one order."""
    torch.manual_seed(1)
    first = build(seed=3, augment="mtan")
    torch.manual_seed(2)
    again, other = build(seed=3, augment="mtan"), build(seed=4, augment="mtan")
    for found, same in ((again, True), (other, False)):
        pairs = zip(first.algorithm.params, found.algorithm.params, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == same
        assert torch.equal(first.stream[0].x, found.stream[0].x) == same


def test_scenes_are_cropped_where_the_description_says_so(build):
    for augment in ("none", "mtan"):
        stream = build(augment=augment).stream
        plain = torch.stack([DATA.train[row][0] for row in stream.rows(0)])
        assert torch.equal(stream[0].x, plain) == (augment == "none")


def test_the_algorithm_knows_the_run(build):
    problem = build(precision="bf16").algorithm.problem
    assert (problem.precision, problem.num_domains) == ("bf16", 3)
    assert (problem.steps, problem.evaluations, problem.batch_size) == (4, 2, 2)


def test_the_trivial_predictor_is_made_of_the_rooms_to_learn_from(build):
    """And only of the one task that is learned."""
    for only, k in (("", slice(3)), ("normal", slice(2, 3))):
        made = build(only_task=only)
        data = [OneTask(split, 2) if only else split for split in (DATA.train, DATA.test)]
        tasks = tasks_of(DATA.kinds)[k]
        evaluator = TaskEvaluator(data[1], tasks, 2, torch.device("cpu"))
        expected, wrong = (trivial.measured(split, tasks, evaluator) for split in data)
        found = made.measured()["trivial"]
        assert strict_json.dumps(found) == strict_json.dumps(expected) != strict_json.dumps(wrong)


def test_what_is_told_of_the_run(build):
    made = build(workers=2)
    assert made.metadata["data"]["notes"] == ["a note"]
    assert made.of_model == {"model_tasks": {"segmentation": 13, "depth": 1, "normal": 3}}
    evaluator = cast(TaskEvaluator, made.evaluator)
    assert evaluator.num_workers == 2
    assert evaluator.shown == ["test_segmentation_miou", "test_depth_abserr", "test_normal_mean"]
    assert evaluator.source_accuracy({}) != evaluator.source_accuracy({}), "no step is selected: NaN"


def test_what_is_to_be_predicted_becomes_a_task():
    kinds: dict[str, Any] = {
        "a": Kind("segmentation", 5),
        "b": Kind("depth", 1),
        "c": Kind("normal", 3),
        "d": Kind("classification", 4),
    }
    found = [(type(task), task.name, task.channels) for task in tasks_of(kinds)]
    assert found == [(Segmentation, "a", 5), (Depth, "b", 1), (Normals, "c", 3), (Classification, "d", 4)]
    with pytest.raises(UserError, match=r"Task e is of an unknown kind\. Found 'sound'\."):
        tasks_of({"e": Kind(cast(Any, "sound"), 1)})
