"""Recordings of multi-task codes: what each is called here, with which hyperparameters, and its random numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from domainbed_sage.training.recordings import Arrays, RecordedDraws

SOLVERS = MappingProxyType({"IMTLG": "IMTL-G", "NashMTL": "Nash-MTL", "EW": "LS"})
# Our algorithm by what stands before the solver's name, the longest first.
ALGORITHMS = MappingProxyType({"SAGE-SAMO-": "SAGE_SAMO", "SAGE-": "SAGE", "SAMO-": "SAMO", "F-": "F-MTL", "": "ERM"})
# Our names of recorded hyperparameters of the algorithms; others are the solver's, or state what is always so.
RENAMED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "ERM": {},
        "SAGE": {
            "rho": "rho",
            "gamma": "gamma",
            "ns": "ns",
            "ns_steps": "ns_steps",
            "weight_factor": "scale_by_weight",
        },
        "SAGE_SAMO": {
            **{name: name for name in ("rho", "gamma", "ns_steps", "zo_eps")},
            "interpolation": "samo_beta",
            "layerwise_normalisation": "layerwise",
        },
        "SAMO": {
            "rho": "samo_rho",
            "interpolation": "samo_beta",
            "zo_eps": "zo_eps",
            "layerwise_normalisation": "layerwise",
            "accumulates_previous_gradient": "accumulate",
        },
        "F-MTL": {"rho": "fmtl_rho", "adaptive": "adaptive", "aggregate": "aggregate"},
    }
)
OF_SOLVERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "UW": {"s_lr": "method_params_lr"},
        "FAMO": {"gamma": "famo_gamma", "w_lr": "famo_w_lr"},
        "FairGrad": {"alpha": "alpha"},
        "CAGrad": {"c": "c"},
        "MGDA": {"times_K": "times_k"},
    }
)
# What these codes solve with a tolerance of their own, and no code of ours repeats: compare the row «@exact».
STOPS_EARLY = ("CAGrad", "NashMTL", "F-MGDA")


@dataclass(frozen=True)
class TaskRecording:
    """How a recorded method is run here.

    Attributes:
        algorithm: our name of its algorithm.
        solver: our name of its solver.
        hparams: the algorithm's hyperparameters.
        solver_hparams: the solver's.
        objectives: options of `TaskObjectives`.
        close: whether our update is that of the recording up to rounding; otherwise its solver stops early.
    """

    algorithm: str
    solver: str
    hparams: Mapping[str, Any] = field(default_factory=dict)
    solver_hparams: dict[str, Any] = field(default_factory=dict)
    objectives: Mapping[str, Any] = field(default_factory=dict)
    close: bool = True


def task_recording(method: str, recorded: Mapping[str, Any], source: str) -> TaskRecording:
    """How a method is run: ``SAGE-FairGrad@exact`` is SAGE with the solver FairGrad, variant «exact».

    Args:
        method: its name.
        recorded: its hyperparameters.
        source: where it comes from; it says whether the solver is an exact one.
    """
    base = method.split("@")[0]
    prefix = next(prefix for prefix in ALGORITHMS if base.startswith(prefix))
    algorithm, name = ALGORITHMS[prefix], base.removeprefix(prefix)
    exact = "exact" in source or algorithm == "SAGE_SAMO"
    hparams = {ours: recorded[theirs] for theirs, ours in RENAMED[algorithm].items() if theirs in recorded}
    if algorithm == "F-MTL":
        hparams |= {"joint_norm": "norm" in recorded}
        hparams |= {"unit_norm": recorded.get("unit_norm_before_mgda", False) and name == "MGDA"}
    renamed = OF_SOLVERS.get(name, {})
    of_solver = {ours: recorded[theirs] for theirs, ours in renamed.items() if theirs in recorded}
    if name in ("MGDA", "FairGrad") and not exact:
        of_solver["solution"] = "samo" if algorithm in ("SAMO", "SAGE") and name == "FairGrad" else "authors"
    if name == "EW":
        of_solver["mean"] = True
    objectives = {name: "shared" if recorded.get(name) == "trunk" else "all" for name in ("agreement_over", "perturb")}
    early = not exact and any(base.endswith(other) for other in STOPS_EARLY)
    return TaskRecording(algorithm, SOLVERS.get(name, name), hparams, of_solver, objectives, not early)


class RecordedTaskDraws(RecordedDraws):
    """The random numbers of a multi-task recording, in the order in which its code used them; none is drawn anew.

    Args:
        arrays: those of the method, by what they are.
        reverse_orders: whether the orders of a step are used from the last to the first.
    """

    NAMES = MappingProxyType(
        {"weights": "normal_draws", "Z": "spsa_directions", "xi": "noise", "U": "uniform_draws", "orders": "orders"}
    )

    def __init__(self, arrays: Arrays, reverse_orders: bool = False) -> None:
        self.arrays = {name: arrays[of] for name, of in self.NAMES.items() if of in arrays}
        if "orders" in self.arrays and reverse_orders:
            self.arrays["orders"] = self.arrays["orders"][:, ::-1]
        self.used = dict.fromkeys(self.arrays, 0)

    def normal(self, name: str, like: Tensor) -> Tensor:
        """See `Draws.normal`."""
        return self._next(name, like)

    uniform = normal

    def permutation(self, name: str, n: int) -> Sequence[int]:
        """See `Draws.permutation`."""
        rows = self.arrays[name].reshape(-1, n)
        self.used[name] += 1
        return [int(i) for i in rows[self.used[name] - 1]]


def own_arrays(method: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """What was recorded of a method by its name, and the draws that it shares with the one that it is a variant of."""
    own, shared = f"{method}/", f"{method.rpartition('@')[0]}/"
    draws = {name: arrays[shared + name] for name in RecordedTaskDraws.NAMES.values() if shared + name in arrays}
    return draws | {key.removeprefix(own): array for key, array in arrays.items() if key.startswith(own)}
