"""Solvers that see losses alone, step by step on recorded losses: their weights and what they remember."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed_sage.algorithms.solvers import LossSolver, Tasks, make_solver
from domainbed_sage.training.recordings import Arrays
from domainbed_sage.training.replays.directions import Given
from domainbed_sage.training.replays.measured import Measured, distance, largest

CLOSE = 1e-9
FLOAT32 = 3e-7  # DWA's code is in it
GAMMAS = (0.001, 0.01)


def _solver(name: str, K: int, **hparams: Any) -> Any:
    made = make_solver(name, Tasks(K, (torch.zeros(1, dtype=torch.float64),)), hparams)
    assert isinstance(made, LossSolver)
    return made


def _logits(famo: Any) -> Tensor:
    w: Tensor = famo.logits.w
    return w


class Losses:
    """Recorded losses [T, K] of one number of tasks, and our solvers on them.

    Args:
        key: of the arrays, as ``k2``.
        arrays: the recording.
    """

    def __init__(self, key: str, arrays: Arrays) -> None:
        self.key, self.arrays = key, arrays
        self.losses, self.after = (torch.from_numpy(arrays[f"{key}/{name}"]) for name in ("losses", "losses_after"))
        self.K = self.losses.shape[1]

    def off(self, name: str, ours: Any) -> float:
        """The distance of ours from a recorded array."""
        return distance(ours, self.arrays[f"{self.key}/{name}"])

    def weights(self, solver: Any, memory: Callable[[], Tensor] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The weights [T, K] of every step, and what `memory` returns after it [T, K]."""
        weights, kept = [], []
        for losses, after in zip(self.losses, self.after, strict=True):
            weights.append(solver.weights(losses).clone())
            solver.stepped(after)
            kept += [memory().clone()] if memory else []
        return torch.stack(weights).numpy(), torch.stack(kept).numpy() if kept else np.zeros((0, self.K))

    def distances(self) -> dict[str, float]:
        """The distance of everything recorded of solvers that the suite has."""
        rlw = _solver("RLW", self.K)
        rlw.draws = Given(self.arrays[f"{self.key}/RLW/draws"].flatten())
        window, _ = self.weights(_solver("DWA", self.K))
        uw = _solver("UW", self.K)
        uw_weights, s = self.weights(uw, lambda: uw.variances.s)
        found = {
            "SI/gradient_weights": self.weights(_solver("SI", self.K))[0],
            "RLW/weights": self.weights(rlw)[0],
            "DWA_window/weights_float64": self.K * window,
            "DWA_window/gradient_weights": window,
            "DWA_epoch/weights": self._by_epoch(),
            "UW/gradient_weights": uw_weights,
            "UW/s": s,
        }
        for gamma in GAMMAS:
            famo = _solver("FAMO", self.K, famo_gamma=gamma)
            name = f"FAMO_gamma{gamma}"
            found[f"{name}/gradient_weights"], found[f"{name}/w"] = self.weights(famo, partial(_logits, famo))
        return {name: self.off(name, ours) for name, ours in found.items()}

    def _by_epoch(self) -> np.ndarray:
        """DWA's weights of the first batch of every epoch [E, K]; NaN if they change within one."""
        dwa, found = _solver("DWA", self.K, reading="epoch"), []
        for batches in torch.from_numpy(self.arrays[f"{self.key}/epoch_losses"]):
            weights = torch.stack([dwa.weights(losses) for losses in batches])
            dwa.epoch_ended()
            found.append(weights[0] if bool((weights == weights[0]).all()) else torch.full_like(weights[0], torch.nan))
        return torch.stack(found).numpy()


def measure(_info: Mapping[str, Any], arrays: Arrays) -> list[Measured]:
    """Every recorded solver, largest over the numbers of tasks."""
    keys = [key.removesuffix("/losses") for key in arrays if key.endswith("/losses") and key.count("/") == 1]
    found = [Losses(key, arrays).distances() for key in keys]
    return [
        largest(
            name, [distances[name] for distances in found], FLOAT32 if name == "DWA_window/gradient_weights" else CLOSE
        )
        for name in found[0]
    ]
