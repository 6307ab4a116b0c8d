"""MTAN on SegNet with the weights of a rule: predictions, losses, gradients and statistics of one pass."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed_sage.geometry.vectors import gram
from domainbed_sage.models.mtan_segnet import MTANSegNet, mtan_segnet
from domainbed_sage.tasks import Depth, Normals, Segmentation, Task
from domainbed_sage.training.recordings import Arrays
from domainbed_sage.training.replays.measured import Measured, distance

CLOSE = 1e-8


def tasks_of(data: str, arrays: Arrays) -> list[Any]:
    """The tasks of a recorded dataset."""
    classes = arrays[f"{data}/train_mode/pred0"].shape[1]
    all_tasks: list[Any] = [Segmentation(classes), Depth(), Normals()]
    return all_tasks[: 2 + (f"{data}/normal" in arrays)]


def with_ruled_weights(tasks: Sequence[Task]) -> MTANSegNet:
    """The network in float64; the j-th value of the i-th parameter is a function of sin(0.7 j + i)."""
    model = mtan_segnet(tasks).double()
    for i, p in enumerate(model.parameters()):
        wave = torch.sin(0.7 * torch.arange(p.numel(), dtype=torch.float64) + i).reshape(p.shape)
        p.data = wave * math.sqrt(2 / math.prod(p.shape[1:])) if p.ndim == 4 else 0.1 * wave
    for norm in model.batch_norms():
        norm.weight.data += 1
    return model


class Pass:
    """One pass of the recorded network over the recorded images.

    Args:
        data: the first part of the arrays' names, as ``nyuv2``.
        arrays: the recording; its predictions may be those of every n-th row and column.
    """

    def __init__(self, data: str, arrays: Arrays) -> None:
        self.data, self.arrays, self.tasks = data, arrays, tasks_of(data, arrays)
        self.model = with_ruled_weights(self.tasks)
        self.image = self.tensor("image")

    def tensor(self, name: str) -> Tensor:
        """A recorded array."""
        return torch.from_numpy(self.arrays[f"{self.data}/{name}"])

    def distances(self) -> dict[str, float]:
        """The distance of everything recorded."""
        model, params = self.model, list(self.model.parameters())
        predictions = model(self.image)
        found = {"predictions": self._predictions("train_mode", predictions)}
        targets = [self.tensor(name) for name in ("label", "depth", "normal")[: len(self.tasks)]]
        losses = [task.loss(p, t) for task, p, t in zip(self.tasks, predictions, targets, strict=True)]
        found["losses"] = self._off("losses", torch.stack(losses).detach())
        rows = [torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True) for loss in losses]
        found["gradient norms"] = self._off("gradient_norms", [[g.norm().item() for g in row] for row in rows])
        found["parameters that a task reaches"] = self._off("reached", model.reached)
        every = (True,) * len(params)
        for name, mask in (("all", every), ("code_shared", model.code_shared), ("reached_by_all", model.shared)):
            G = gram([tuple(g for g, has in zip(row, mask, strict=True) if has) for row in rows])
            found[f"inner products, {name}"] = self._off(f"gram_{name}", G)
        found["running means"] = self._running_means()
        with torch.no_grad():
            found["predictions, eval mode"] = self._predictions("eval_mode_after_one_pass", model.eval()(self.image))
        return found

    def _off(self, name: str, ours: Any) -> float:
        return distance(np.asarray(ours), self.arrays[f"{self.data}/{name}"])

    def _predictions(self, kind: str, predictions: Sequence[Tensor]) -> float:
        found = []
        for k, prediction in enumerate(predictions):
            theirs = self.tensor(f"{kind}/pred{k}")
            step = prediction.shape[-1] // theirs.shape[-1]
            found.append(distance(prediction.detach()[..., ::step, ::step], theirs))
        return float(np.max(found))

    def _running_means(self) -> float:
        state, start = self.model.state_dict(), f"{self.data}/after_one_pass/"
        names = [key.removeprefix(start) for key in self.arrays if key.startswith(start)]
        return float(np.max([self._off(f"after_one_pass/{name}", state[name]) for name in names]))


def measure(info: Mapping[str, Any], arrays: Arrays) -> list[Measured]:
    """Every recorded dataset."""
    rows = []
    for data in dict.fromkeys(key.split("/")[0] for key in arrays if key.endswith("/gram_all")):
        one = Pass(data, arrays)
        recorded = [(p["name"], p["shape"]) for p in info["datasets"][data]["parameters"]]
        named = [(name, list(p.shape)) for name, p in one.model.named_parameters()] == recorded
        rows.append(Measured(f"{data}: names and shapes", 0.0 if named else math.inf, 0.0, 1))
        rows += [Measured(f"{data}: {what}", off, CLOSE, 1) for what, off in one.distances().items()]
    return rows
