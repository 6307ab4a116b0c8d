"""The metrics of the trivial predictor in the records of a run, against those of a plain loop over the rooms."""

import torch
from torch.nn import functional as F

from domainbed_sage.core import strict_json
from domainbed_sage.data.multitask import rooms
from domainbed_sage.tasks import Depth, Normals, Segmentation
from domainbed_sage.training.task_evaluator import TaskEvaluator
from domainbed_sage.training.trivial import measured

TASKS = (Segmentation(13), Depth(), Normals("normal"))


def literal(data):
    """All training targets at once; one prediction for each test sample."""
    labels, depths, normals = (torch.stack([data.train[i][1][k] for i in range(len(data.train))]) for k in range(3))
    scores = torch.stack([(labels == c).sum(0) for c in range(13)]).double()
    scores += (scores.sum((1, 2)) / scores.sum())[:, None, None] / 2  # ties go to the class of more pixels
    depth = depths.sum(0) / (depths != 0).sum(0)
    depth = torch.where(depth.isnan(), depths[depths != 0].mean(), depth)
    normal = F.normalize(normals.sum(0), dim=0)
    return [scores.float(), depth, normal]


def test_metrics():
    data = rooms.load(12, 6, size=(32, 32))
    evaluator = TaskEvaluator(data.test, TASKS, 4, torch.device("cpu"))
    found = measured(data.train, TASKS, evaluator)
    expected = evaluator.full(lambda x: [y.expand(len(x), *y.shape) for y in literal(data)])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(found[name] - value) < 1e-4 or value != value, name


def test_loader_processes_and_batches_change_nothing():
    data = rooms.load(7, 3, size=(32, 32))
    ways = [(2, 0), (2, 2), (7, 0)]
    found = [
        measured(data.train, TASKS, TaskEvaluator(data.test, TASKS, batch, torch.device("cpu")), workers)
        for batch, workers in ways
    ]
    assert strict_json.dumps(found[0]) == strict_json.dumps(found[1])
    assert found[0]["test_segmentation_pixacc"] == found[2]["test_segmentation_pixacc"]
