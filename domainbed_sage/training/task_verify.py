"""Replay recorded multi-task trajectories and measure how far our updates are from them."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.models.optimizers import adam
from domainbed_sage.training.recordings import Arrays
from domainbed_sage.training.task_networks import Case
from domainbed_sage.training.task_recordings import RecordedTaskDraws, own_arrays, task_recording


@dataclass(frozen=True)
class TaskDeviation:
    """Largest relative deviations of one method over all steps; None where nothing was recorded.

    Attributes:
        method: its name in the recording.
        gradient: what the optimizer is given, each step starting from the recorded weights.
        params: weights after each of these steps.
        agreement: SAGE's S.
        running: statistics of BatchNorm after each step, which only the clean pass moves.
        close: whether a deviation would be ours; otherwise the recorded solver stops early, and «@exact» is the test.
    """

    method: str
    gradient: float
    params: float
    agreement: float | None
    running: float | None
    close: bool

    @property
    def worst(self) -> float:
        """Largest deviation but that of the weights, where Adam makes motion of rounding; infinite for no number."""
        found = [self.gradient, self.agreement or 0.0, self.running or 0.0]
        return math.inf if any(map(math.isnan, found)) else max(found)


def is_of_tasks(info: Mapping[str, Any]) -> bool:
    """Whether a recording is one of a multi-task code."""
    order = info.get("param_order")
    return isinstance(order, list) and any(str(name).startswith(("heads.", "pred_task")) for name in order)


def replay_tasks(info: Mapping[str, Any], arrays: Arrays) -> list[TaskDeviation]:
    """Run every recorded method in float64, each step from the recorded weights of the step before."""
    return [_compare(method, info, arrays) for method in info["hparams"] if not method.endswith("_bf16")]


class _Replay:
    """One recorded method, its data, and our algorithm on them."""

    def __init__(self, method: str, info: Mapping[str, Any], arrays: Arrays) -> None:
        self.case, self.recorded = Case(info, arrays), own_arrays(method, arrays)
        hparams, sources = info["hparams"][method], info["source"]
        how = task_recording(method, hparams, sources if isinstance(sources, str) else sources[method])
        objectives = partial(
            TaskObjectives,
            tasks=self.case.tasks,
            heads=self.case.heads,
            solver=how.solver,
            solver_hparams=how.solver_hparams,
            **how.objectives,
        )
        network: Any = self.case.network
        make_optimizer, cls = partial(adam, lr=hparams["lr"]), algorithms[how.algorithm]
        problem = Problem(network, make_optimizer, len(self.case.tasks), "fp64", objectives=objectives)
        self.close, self.algorithm = how.close, cls(problem, **validate(declared(cls), how.hparams))
        self.algorithm.draws = RecordedTaskDraws(self.recorded, reverse_orders="h, then g" in str(sources))
        buffers = dict(network.named_buffers())
        self.buffers = [buffers[name] for name in info.get("buffer_order", [])]

    def run(self) -> dict[str, np.ndarray]:
        """By name in the recording: what the optimizer is given [T, P], the weights after every step [T, P], S [T].

        Every step starts from the recorded weights; the statistics of BatchNorm [T, B] are left to themselves.
        """
        given, found = list[Tensor](), defaultdict[str, list[Tensor]](list)
        algorithm, trained = self.algorithm, list(self.algorithm.params)
        algorithm.optimizer.register_step_pre_hook(lambda *_: given.append(_flat([p.grad for p in trained])))
        for t, recorded in enumerate(self.recorded["params"]):
            batch: Any = self.case.batch(t)
            algorithm.step, algorithm.batch = t, batch
            metrics = algorithm.update(batch)
            found["params"].append(parameters_to_vector(trained).detach())
            found["agreement"] += [metrics["agreement"]] if "agreement" in metrics else []
            found["running"] += [_flat([b.clone() for b in self.buffers])] if self.buffers else []
            vector_to_parameters(torch.tensor(recorded), trained)
        found["gradient"] = given
        return {name: torch.stack(values).numpy() for name, values in found.items() if values}


def _flat(tensors: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors if t is not None])


def _compare(method: str, info: Mapping[str, Any], arrays: Arrays) -> TaskDeviation:
    replay = _Replay(method, info, arrays)
    ours, theirs = replay.run(), replay.recorded
    distances = {name: _relative(ours[name], theirs[name]) for name in ours if name in theirs}
    S = distances.get("agreement")
    return TaskDeviation(method, distances["gradient"], distances["params"], S, distances.get("running"), replay.close)


def _relative(ours: np.ndarray, recorded: np.ndarray) -> float:
    difference, size = (np.abs(x).reshape(len(recorded), -1).max(1) for x in (ours - recorded, recorded))
    return float(np.max(difference / size))


def report_tasks(deviations: Sequence[TaskDeviation], tolerance: float) -> tuple[str, bool]:
    """Table of the deviations, and whether every one that would be ours is within the tolerance."""
    columns = "{:<32} {:>9} {:>9} {:>9} {:>9}  {}"
    lines = [columns.format("method", "gradient", "weights", "agreement", "BatchNorm", "")]
    names = {d.method for d in deviations}
    for d in deviations:
        numbers = ["-" if v is None else f"{v:.1e}" for v in (d.gradient, d.params, d.agreement, d.running)]
        verdict = "ok" if d.worst <= tolerance else "DIFFERS" if d.close else "its solver stops early"
        if not d.close and (twin := f"{d.method}@exact") in names:
            verdict += f", see {twin}"
        lines.append(columns.format(d.method, *numbers, verdict))
    return "\n".join(lines), all(d.worst <= tolerance for d in deviations if d.close)
