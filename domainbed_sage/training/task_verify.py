"""Replay recorded multi-task trajectories and measure how far our updates are from them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.data.batch import TaskBatch
from domainbed_sage.models import ImageSpec, Model
from domainbed_sage.models.optimizers import adam
from domainbed_sage.training.task_recordings import Arrays, RecordedTaskDraws, own_arrays, task_recording


@dataclass(frozen=True)
class TaskDeviation:
    """Largest relative deviations of one method over all steps; None where nothing was recorded.

    Attributes:
        method: its name in the recording.
        gradient: what the optimizer is given, each step starting from the recorded weights.
        params: weights after each of these steps.
        agreement: SAGE's S.
        close: whether a deviation would be ours; otherwise the recorded solver stops early, and «@exact» is the test.
    """

    method: str
    gradient: float
    params: float
    agreement: float | None
    close: bool

    @property
    def worst(self) -> float:
        """Largest deviation of what the optimizer is given and of S; infinite when a value of ours is not a number."""
        found = [self.gradient, self.agreement or 0.0]
        return math.inf if any(map(math.isnan, found)) else max(found)


def is_of_tasks(info: Mapping[str, Any]) -> bool:
    """Whether a recording is one of a multi-task code."""
    order = info.get("param_order")
    return isinstance(order, list) and any(str(name).startswith("heads.") for name in order)


def replay_tasks(info: Mapping[str, Any], arrays: Arrays) -> list[TaskDeviation]:
    """Run every recorded method in float64, each step from the recorded weights of the step before."""
    return [_compare(method, info, arrays) for method in info["hparams"] if not method.endswith("_bf16")]


class _Network(Model):
    """A trunk and one head a task."""

    def __init__(self, trunk: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__(trunk, nn.ModuleList(heads), ImageSpec(0, (0, 0, 0), (1, 1, 1)), freeze_bn=False)

    def forward(self, x: Tensor) -> Any:
        """One output a task."""
        z = self.featurizer(x)
        return [head(z) for head in self.classifier.children()]


@dataclass(frozen=True)
class _Loss:
    loss: Callable[[Tensor, Tensor], Tensor]


class _Replay:
    """One recorded method, its data, and our algorithm on them."""

    def __init__(self, method: str, info: Mapping[str, Any], arrays: Arrays) -> None:
        self.info, self.arrays, self.recorded = info, arrays, own_arrays(method, arrays)
        self.order = list(info["param_order"])
        self.K = sum(name.startswith("heads.") and name.endswith("weight") for name in self.order)
        hparams, sources = info["hparams"][method], info["source"]
        how = task_recording(method, hparams, sources if isinstance(sources, str) else sources[method])
        objectives = partial(
            TaskObjectives,
            tasks=[_Loss(F.mse_loss if y.is_floating_point() else F.cross_entropy) for y in self.batch(0).targets],
            heads=[[f"classifier.{k}.weight", f"classifier.{k}.bias"] for k in range(self.K)],
            solver=how.solver,
            hparams=how.solver_hparams,
            **how.objectives,
        )
        network, cls = self.network(), algorithms[how.algorithm]
        problem = Problem(network, partial(adam, lr=hparams["lr"]), self.K, "fp64", objectives=objectives)
        self.close, self.algorithm = how.close, cls(problem, **validate(declared(cls), how.hparams))
        self.algorithm.draws = RecordedTaskDraws(self.recorded, reverse_orders="h, then g" in str(sources))

    def network(self) -> Model:
        """The network with the recorded weights."""
        at = {name: torch.tensor(self.arrays[f"init/{name}"]) for name in self.order}
        layers = {
            name.removesuffix(".weight"): nn.Linear(W.shape[1], W.shape[0]) for name, W in at.items() if W.ndim > 1
        }
        for name, layer in layers.items():
            layer.weight.data, layer.bias.data = at[f"{name}.weight"], at[f"{name}.bias"]
        trunk = nn.Sequential(layers["trunk.0"], nn.ReLU(), layers["trunk.2"], nn.ReLU())
        return _Network(trunk, [layers[f"heads.{k}"] for k in range(self.K)])

    def batch(self, t: int) -> TaskBatch:
        """The minibatch of step t."""
        several = "y" not in self.arrays
        targets = [self.arrays[f"y{k}"][t] if several else self.arrays["y"][t][:, k] for k in range(self.K)]
        return TaskBatch(torch.tensor(self.arrays["x"][t]), tuple(torch.tensor(y) for y in targets))

    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the optimizer is given [T, P], the weights after every step [T, P], and S [T], NaN without it."""
        given, params, agreements = list[Tensor](), list[Tensor](), list[Tensor]()
        algorithm, trained = self.algorithm, list(self.algorithm.params)
        algorithm.optimizer.register_step_pre_hook(lambda *_: given.append(_flat([p.grad for p in trained])))
        for t, recorded in enumerate(self.recorded["params"]):
            batch: Any = self.batch(t)
            algorithm.step, algorithm.batch = t, batch
            metrics = algorithm.update(batch)
            params.append(parameters_to_vector(trained).detach())
            agreements.append(metrics.get("agreement", torch.tensor(math.nan)))
            vector_to_parameters(torch.tensor(recorded), trained)
        return torch.stack(given).numpy(), torch.stack(params).numpy(), torch.stack(agreements).numpy()


def _flat(tensors: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors if t is not None])


def _compare(method: str, info: Mapping[str, Any], arrays: Arrays) -> TaskDeviation:
    replay = _Replay(method, info, arrays)
    given, params, agreements = replay.run()
    S = replay.recorded.get("agreement")
    return TaskDeviation(
        method,
        _relative(given, replay.recorded["gradient"]),
        _relative(params, replay.recorded["params"]),
        None if S is None else float(np.abs(agreements - S).max()),
        replay.close,
    )


def _relative(ours: np.ndarray, recorded: np.ndarray) -> float:
    return float(np.max(np.abs(ours - recorded).max(1) / np.abs(recorded).max(1)))


def report_tasks(deviations: Sequence[TaskDeviation], tolerance: float) -> tuple[str, bool]:
    """Table of the deviations, and whether every one that would be ours is within the tolerance."""
    columns = "{:<32} {:>9} {:>9} {:>9}  {}"
    lines = [columns.format("method", "gradient", "weights", "agreement", "")]
    for d in deviations:
        numbers = ["-" if v is None else f"{v:.1e}" for v in (d.gradient, d.params, d.agreement)]
        verdict = "ok" if d.worst <= tolerance else "DIFFERS" if d.close else "its solver stops early"
        lines.append(columns.format(d.method, *numbers, verdict))
    return "\n".join(lines), all(d.worst <= tolerance for d in deviations if d.close)
