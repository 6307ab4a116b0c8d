"""Replay recorded optimisation trajectories and measure how far ours are from them."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from domainbed_sage.algorithms import Algorithm, Problem, algorithms
from domainbed_sage.core.errors import UserError, raise_all, shown
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.models import ImageSpec, Model
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.training.recordings import RecordedDraws, Recording, load, recording

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Deviation:
    """Largest relative deviations of one method over all steps; `None` where nothing was compared.

    Attributes:
        method: its name in the recording.
        params: weights after each step, each step starting from the recorded weights.
        loss: the loss the method reports.
        agreement: the agreement S.
        others: whatever else was recorded that the method reports, all together: penalties, parts of the loss.
        free: weights along our own trajectory, which never sees the recorded weights again after the start.
        rounding: of our own steps from themselves when the domains are summed in reverse order. Above 1e-9 the method
            depends on the last bits of its gradients, and only a machine with the recording's arithmetic repeats it.
    """

    method: str
    params: float | None = None
    loss: float | None = None
    agreement: float | None = None
    others: float | None = None
    free: float | None = None
    rounding: float | None = None

    @property
    def worst(self) -> float:
        """Largest step-by-step deviation; infinite when a value of ours is not a number."""
        found = [d for d in (self.params, self.loss, self.agreement, self.others) if d is not None]
        return float("inf") if any(np.isnan(found)) else max(found, default=0.0)


def replay(goldens: Path) -> list[Deviation]:
    """Run every recorded method that the suite has, in float64, from the recorded weights on the recorded batches.

    Random numbers are the recorded ones, where there are any.

    Every step starts from the recorded weights of the step before, with our own optimiser state: a deviation then
    belongs to that step, and rounding is not amplified along the way (the SVD of a gradient short of full rank
    amplifies the last bit to anything). The free-running deviation is measured beside it.

    The deviation of step t is ‖ours - recorded‖_∞ / ‖recorded‖_∞, over the flattened weights after that step, the loss
    the method reports, for SAGE the agreement S, and the other recorded metrics. Sizes (domains, batch, inputs,
    classes, steps, width) are read from the file, whose arrays `x` [T, K, B, d], `y` [T, K, B], `init/<parameter>`,
    `<method>/params` [T, P], `<method>/loss` [T] are described by a JSON file of the same name beside it.

    Raises:
        UserError: a file is missing or is not such a recording.
    """
    info, arrays = _read(goldens)
    return [_compare(method, hparams, info["param_order"], arrays) for method, hparams in info["hparams"].items()]


def known_as(method: str) -> str | None:
    """Our name for a recorded method, if the suite has it: see `recordings`."""
    found = recording(method)
    return found.algorithm if found else None


def report(deviations: list[Deviation]) -> tuple[str, bool]:
    """Table of the deviations, and whether every method of ours is within 1e-9."""
    columns = "{:<19} {:>8} {:>8} {:>9} {:>8} {:>12}  {}"
    lines, notes = [columns.format("method", "weights", "loss", "agreement", "other", "free-running", "")], []
    for d in deviations:
        numbers = ["-" if v is None else f"{v:.1e}" for v in (d.params, d.loss, d.agreement, d.others, d.free)]
        verdict = "not in this suite" if d.params is None else "ok" if d.worst <= TOLERANCE else "DIFFERS"
        lines.append(columns.format(d.method, *numbers, verdict))
        if d.worst > TOLERANCE and (d.rounding or 0) > TOLERANCE:
            notes.append(
                f"{d.method}: rounding alone, the domains summed in reverse order, moves a step by {d.rounding:.1e}. "
                "Its polar factor is not unique, so only the arithmetic of the recording machine repeats it."
            )
    if all(d.params is None for d in deviations):
        notes.append("The recording has no method of this suite, so nothing was verified.")
        return "\n".join(lines + notes), False
    return "\n".join(lines + notes), all(d.worst <= TOLERANCE for d in deviations)


def _read(goldens: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    info, arrays = load(goldens)
    raise_all(_wrong_types(info), f"{goldens.with_suffix('.json')}, which should describe a recording")
    needed = ["x", "y", *(f"init/{name}" for name in info.get("param_order", ["?"]))]
    needed += [f"{method}/params" for method in info.get("hparams", []) if known_as(method)]
    missing = [name for name in needed if name not in arrays] + [k for k in ("hparams", "param_order") if k not in info]
    if missing:
        raise UserError(f"{goldens} should be a recording of trajectories. Missing in it: {', '.join(missing)}.")
    raise_all(_wrong_arrays(info, arrays), f"{goldens}, which should be a recording of trajectories")
    return info, arrays


def _wrong_types(info: dict[str, Any]) -> list[str]:
    methods, order = info.get("hparams", {}), info.get("param_order", [])
    mistakes = []
    if not isinstance(methods, dict) or not all(isinstance(hparams, dict) for hparams in methods.values()):
        mistakes.append(f"hparams should be hyperparameters by method. Found {shown(methods)}.")
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        mistakes.append(f"param_order should be a list of names. Found {shown(order)}.")
    elif "param_order" in info and sorted(order) != sorted(_parameters(order)):
        mistakes.append(f"param_order should be {', '.join(_parameters(order))}, for example. Found {shown(order)}.")
    return mistakes


def _parameters(order: list[str]) -> list[str]:
    """Weights and biases of a network with as many layers."""
    last = max(sum(name.endswith(".weight") for name in order) - 1, 0)
    layers = [*(f"featurizer.{2 * i}" for i in range(last)), "classifier"]
    return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


def _wrong_arrays(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[str]:
    """Arrays whose sizes or types do not fit together."""
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 4 or not x.size:
        return [f"x should have the sizes [T, K, B, d]. Found {x.shape}."]
    width, sizes = x.shape[3], dict[str, tuple[int, ...]]()
    for name in (name for name in _parameters(info["param_order"]) if name.endswith(".weight")):
        rows = len(arrays[f"init/{name}"]) if arrays[f"init/{name}"].ndim else 0
        sizes |= {f"init/{name}": (rows, width), f"init/{name.removesuffix('.weight')}.bias": (rows,)}
        width = rows
    total = sum(math.prod(size) for size in sizes.values())
    for method in filter(known_as, info["hparams"]):
        sizes |= {f"{method}/params": (len(x), total), f"{method}/loss": (len(x),), f"{method}/agreement": (len(x),)}
    found = {name: arrays[name] for name in ("x", *sizes) if name in arrays}
    mistakes = [
        f"{name} should be of float64 and the sizes {sizes.get(name, x.shape)}. Found {array.dtype} {array.shape}."
        for name, array in found.items()
        if array.dtype != np.float64 or array.shape != sizes.get(name, x.shape) or not array.size
    ]
    if y.shape != x.shape[:3] or y.dtype != np.int64 or not ((y >= 0) & (y < width)).all():
        mistakes.append(f"y should be classes from 0 to {width - 1}, int64 {x.shape[:3]}. Found {y.dtype} {y.shape}.")
    return mistakes


def _network(order: list[str], arrays: dict[str, np.ndarray]) -> Model:
    """Linear layers with ReLU between those of the featurizer, and a linear classifier, with the recorded weights."""

    def linear(name: str) -> nn.Linear:
        layer = nn.Linear(*reversed(arrays[f"init/{name}.weight"].shape))
        layer.weight.data = torch.tensor(arrays[f"init/{name}.weight"])
        layer.bias.data = torch.tensor(arrays[f"init/{name}.bias"])
        return layer

    names = [name.removesuffix(".weight") for name in order if name.endswith(".weight")]
    layers: list[nn.Module] = []
    for name in names[:-1]:
        layers += [linear(name), nn.ReLU()]
    return Model(nn.Sequential(*layers[:-1]), linear(names[-1]), ImageSpec(0, (0, 0, 0), (1, 1, 1)))


class _Replay:
    """One recorded method, its data, and our algorithm on them."""

    def __init__(self, method: str, hparams: dict[str, Any], order: list[str], arrays: dict[str, np.ndarray]) -> None:
        self.method, self.order, self.arrays = method, order, arrays
        how = recording(method) or Recording(method)
        self.algorithm, self.optimizer = how.algorithm, optimizers[how.optimizer_name(hparams)]
        values = how.hparams(hparams)
        of_optimizer = {k: v for k, v in values.items() if k in declared(self.optimizer)}
        own = {k: v for k, v in values.items() if k not in of_optimizer}
        self.of_optimizer = validate(declared(self.optimizer), of_optimizer)
        self.own = validate(declared(algorithms[self.algorithm]), own)

    def made(self) -> Algorithm:
        """The algorithm at the recorded start."""
        model = _network(self.order, self.arrays)
        T, K, B, _ = self.arrays["x"].shape
        model.class_features = f"{self.method}/text_features" in self.arrays
        make_optimizer = partial(self.optimizer, **self.of_optimizer)
        problem = Problem(model, make_optimizer, K, precision="fp64", steps=T, batch_size=B)
        algorithm = algorithms[self.algorithm](problem, **self.own)
        algorithm.draws = RecordedDraws(self.method, self.arrays)
        names = {name for name in algorithm.networks.state_dict() if self._start(name) in self.arrays}
        start = {name: torch.tensor(self.arrays[self._start(name)]) for name in names}
        algorithm.networks.load_state_dict(start, strict=False)
        return algorithm

    def _start(self, name: str) -> str:
        return f"{self.method}/init/{name}"

    def run(self, resets: np.ndarray | None, reverse: bool = False) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Our weights after every step [T, P] and the metrics; with `resets` [T, P], step t + 1 starts from its row t.

        With `reverse`, the domains are in reverse order in every batch: the same update up to rounding.
        """
        x, y = (torch.from_numpy(self.arrays[k]).flip(1) if reverse else torch.from_numpy(self.arrays[k]) for k in "xy")
        T, K, B, _ = x.shape
        algorithm = self.made()
        trained = [algorithm.problem.model.get_parameter(n) for n in self.order]
        params, metrics = [], []
        for t in range(T):
            algorithm.step = t
            metrics.append(algorithm.update(DomainBatch(x[t].flatten(0, 1), y[t].flatten(), (B,) * K)))
            params.append(parameters_to_vector(trained).detach())
            if resets is not None:
                vector_to_parameters(torch.tensor(resets[t]), trained)
        return torch.stack(params), metrics


def _compare(method: str, hparams: dict[str, Any], order: list[str], arrays: dict[str, np.ndarray]) -> Deviation:
    if known_as(method) is None:
        return Deviation(method)
    replayed, recorded = _Replay(method, hparams, order, arrays), arrays[f"{method}/params"]
    params, metrics = replayed.run(recorded)
    free, _ = replayed.run(None)
    reverse, _ = replayed.run(recorded, reverse=True)
    logged = {
        key: _relative(torch.stack([m[key] for m in metrics]), arrays[f"{method}/{key}"])
        for key in metrics[0]
        if f"{method}/{key}" in arrays and len(arrays[f"{method}/{key}"]) == len(metrics)
    }
    others = [value for key, value in logged.items() if key not in ("loss", "agreement")]
    return Deviation(
        method,
        _relative(params, recorded),
        logged.get("loss"),
        logged.get("agreement"),
        float(np.max(others)) if others else None,  # NaN, if one of them is
        _relative(free, recorded),
        _relative(reverse, params.numpy()),
    )


def _relative(ours: Tensor, recorded: np.ndarray) -> float:
    difference = np.abs(ours.numpy() - recorded).reshape(len(recorded), -1)
    return float(np.max(difference.max(1) / np.abs(recorded).reshape(len(recorded), -1).max(1)))
