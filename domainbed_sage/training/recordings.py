"""Recordings of the authors' own code: what each is called here, and the random numbers that it used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbed_sage.algorithms import algorithms
from domainbed_sage.algorithms.draws import Draws
from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Recording:
    """How a recorded method is run here.

    Attributes:
        algorithm: our name of it.
        renamed: our names of its hyperparameters, where they differ.
        fixed: hyperparameters that it states in words only.
        optimizer: our name of its optimizer; empty where the recording names it, or means Adam.
        ignored: what the recording lists and no code of ours asks for, because our choice of method implies it.
    """

    algorithm: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = ""
    ignored: Sequence[str] = ()

    def hparams(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """All recorded hyperparameters under our names, without the optimizer's own."""
        own = {self.renamed.get(k, k): v for k, v in recorded.items() if k not in ("optimizer", *self.ignored)}
        return {**own, **self.fixed}

    def optimizer_name(self, recorded: Mapping[str, Any]) -> str:
        """Our name of the optimizer."""
        return self.optimizer or str(recorded.get("optimizer", "adam"))


_GGA = {"neighborhoodSize": "radius", "start_step": "start", "end_step": "end", "search_steps": "trials"}
_DISCRIMINATOR = {"beta2": 0.9, "mlp_width": 16}
_DANN = {"lr_g": "lr", "weight_decay_g": "weight_decay", "lambda": "lambda_weight"}

# One row a recorded method whose name or hyperparameters are others than here.
RECORDINGS: Mapping[str, Recording] = MappingProxyType(
    {
        "DANN": Recording("DANN", _DANN, _DISCRIMINATOR),
        "CDANN": Recording("CDANN", _DANN, {**_DISCRIMINATOR, "round_weights": True}),
        "CDANN+float64": Recording("CDANN", _DANN, _DISCRIMINATOR),
        "Fishr": Recording("Fishr", {"lambda": "lambda_weight"}),
        "GAM+paper": Recording("GAM", fixed={"reading": "paper"}),
        "GGA+noise": Recording("GGA", _GGA, {"random_walk": True}),
        "GGA+noise_centred": Recording("GGA", _GGA),
        "GGAL+noise": Recording("GGA_L", {"gga_l_gamma": "gamma"}, {"noise": "gaussian"}),
        "GGAL+noise_uniform": Recording("GGA_L", {"gga_l_gamma": "gamma"}, {"noise": "uniform"}),
        "ERM+sgd": Recording("ERM", fixed={"momentum": 0.0}),
        "ERM+muon": Recording("ERM", fixed={"muon_params": "matrices"}),
        "ERM+muon_hidden": Recording("ERM", fixed={"muon_params": "hidden"}),
        "ASAM+davda54": Recording("ASAM", fixed={"reading": "davda54"}),
        "Fish+official": Recording("Fish", optimizer="amsgrad", ignored=("amsgrad",)),
    }
)

# Further draws of a variant that only states what differs from another one.
SHARED_DRAWS = {"GGA+noise_centred": "GGA+noise"}


def recording(method: str) -> Recording | None:
    """How a recorded method is run: its own row, or that of what stands before the first + or _ (SAGE_svd -> SAGE)."""
    names = (method, method.split("+")[0], method.split("+")[0].split("_")[0])
    rows = (RECORDINGS.get(name, Recording(name)) for name in names)
    return next((row for row in rows if row.algorithm in algorithms), None)


class RecordedDraws(Draws):
    """The random numbers of a recording, in the order in which its code used them; what was not recorded is drawn.

    Numbers of tensors are read on and on from the flattened array; of a permutation, one row after the other.
    """

    def __init__(self, method: str, arrays: Arrays) -> None:
        prefix = f"{SHARED_DRAWS.get(method, method)}/noise/"
        self.arrays = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
        self.used = dict.fromkeys(self.arrays, 0)

    def normal(self, name: str, like: Tensor) -> Tensor:
        """See `Draws.normal`."""
        return self._next(name, like) if name in self.arrays else super().normal(name, like)

    def uniform(self, name: str, like: Tensor) -> Tensor:
        """See `Draws.uniform`."""
        return self._next(name, like) if name in self.arrays else super().uniform(name, like)

    def beta(self, name: str, alpha: float, n: int) -> Sequence[float]:
        """See `Draws.beta`."""
        return self._next(name, torch.empty(n)).tolist() if name in self.arrays else super().beta(name, alpha, n)

    def permutation(self, name: str, n: int) -> Sequence[int]:
        """See `Draws.permutation`; a recording may hold as many of the numbers as its code used."""
        return self._row(name).tolist() if name in self.arrays else super().permutation(name, n)

    def sort(self, name: str, values: Tensor) -> Tensor:
        """See `Draws.sort`."""
        return torch.from_numpy(self._row(name)) if name in self.arrays else super().sort(name, values)

    def within(self, name: str, sorted_groups: Tensor) -> Tensor:
        """See `Draws.within`."""
        return torch.from_numpy(self._row(name)) if name in self.arrays else super().within(name, sorted_groups)

    def _next(self, name: str, like: Tensor) -> Tensor:
        flat, start = self.arrays[name].reshape(-1), self.used[name]
        self.used[name] = start + like.numel()
        return torch.tensor(flat[start : self.used[name]]).reshape(like.shape)

    def _row(self, name: str) -> NDArray[np.int64]:
        row: NDArray[np.int64] = self.arrays[name][self.used[name]]
        self.used[name] += 1
        return row


def load(goldens: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The description and the arrays of a recording, X.json and X.npz.

    Raises:
        UserError: one of the files is missing or damaged.
    """
    description = goldens.with_suffix(".json")
    for path in (goldens, description):
        if not path.is_file():
            raise UserError(f"{path} does not exist. `verify` needs a recording X.npz and its description X.json.")
    try:
        info = strict_json.loads(description.read_bytes())
        with goldens.open("rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        if not isinstance(info, dict):
            raise ValueError(f"{description.name} is not a JSON object")
    except Exception as error:  # a damaged archive can break its reader in any way
        raise UserError(f"{goldens} and {description.name} should be a recording. Found: {error}") from None
    return info, arrays
