"""Solvers on recorded Jacobians: their directions and what they leave in `.grad`, and sequences with a memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from domainbed_sage.algorithms.draws import Draws
from domainbed_sage.algorithms.solvers import Solver, Tasks, make_solver
from domainbed_sage.training.recordings import Arrays
from domainbed_sage.training.replays.measured import Measured, largest, not_compared

EXACT = 1e-8  # exact solutions
ILL = ("zero_row", "antiparallel", "sum_row", "rank_one", "equal_rows")  # dependent gradients
SHORT = ("tiny", "small", "spread")  # where tolerances of a code are larger than its gradients
NO_ANSWER = ("antiparallel", "zero_row")


@dataclass(frozen=True)
class Row:
    """A recorded solver, and how ours is compared with it.

    Attributes:
        key: its name in the recording.
        solver: ours.
        tolerance: the largest relative distance of two directions.
        hparams: of our solver.
        without: words of cases that are left out.
        why: they are left out.
        draws: the name of its recorded draws.
        factor: of our direction.
    """

    key: str
    solver: str
    tolerance: float
    hparams: Mapping[str, Any] = field(default_factory=dict)
    without: Sequence[str] = ()
    why: str = ""
    draws: str = ""
    factor: float = 1.0


_AUTHORS, _SAMO, _ONE = {"solution": "authors"}, {"solution": "samo"}, {"alpha": 1.0}
_NO_ECOS = (*ILL, *SHORT, "conflict", "vertex", "near")  # where ECOS does not converge
_EARLY = "stops early elsewhere, see exact/"
# Tolerances: 1e-8 for exact solutions, 1e-9 for equal routines, and for the others where their own accuracy ends.
ROWS = (
    Row("exact/MGDA", "MGDA", EXACT),
    Row("exact/IMTLG", "IMTL-G", EXACT),
    Row("exact/CAGrad", "CAGrad", EXACT),
    Row("exact/FairGrad_a1", "FairGrad", EXACT, _ONE),
    Row("exact/FairGrad_a1 (Nash-MTL)", "Nash-MTL", EXACT),
    Row("exact/FairGrad_a2", "FairGrad", EXACT),
    Row("exact/PCGrad", "PCGrad", EXACT, draws="orders"),
    Row("exact/GradDrop", "GradDrop", EXACT, draws="U"),
    Row("MGDA", "MGDA", 1e-9, _AUTHORS),
    Row("MGDA_libmtl", "MGDA", 1e-9, _AUTHORS),
    Row("PCGrad", "PCGrad", 1e-9, draws="orders"),
    Row("GradDrop", "GradDrop", 1e-9, draws="U"),
    Row("IMTLG", "IMTL-G", 1e-9, {}, ILL, "arbitrary where gradients are dependent"),
    Row("CAGrad", "CAGrad", 2e-3, {}, (*ILL, *SHORT, "k3_all_conflict"), f"{_EARLY}CAGrad"),
    Row("FairGrad_a1_fairgrad", "FairGrad", 1e-6, _ONE | _AUTHORS, (*NO_ANSWER, "1e6"), "no answer elsewhere"),
    Row("FairGrad_a2_fairgrad", "FairGrad", 1e-6, _AUTHORS, (*NO_ANSWER, "1e6"), "no answer elsewhere"),
    Row("FairGrad_a1_samo", "FairGrad", 1e-6, _ONE | _SAMO, (*NO_ANSWER, "1e6"), "no answer elsewhere"),
    Row("FairGrad_a2_samo", "FairGrad", 1e-6, _SAMO, (*NO_ANSWER, "1e6"), "no answer elsewhere"),
    Row("NashMTL", "Nash-MTL", 1e-6, {}, _NO_ECOS, f"{_EARLY}FairGrad_a1"),
    Row("torchjd/MGDA_1e-9_100000", "MGDA", 3e-3, {}, (*SHORT, *NO_ANSWER), f"{_EARLY}MGDA"),
    Row("torchjd/PCGrad", "PCGrad", 1e-9, draws="orders"),
    Row("torchjd/GradDrop", "GradDrop", 1e-9, draws="U"),
    Row("torchjd/IMTLG", "IMTL-G", 1e-9, {}, ILL, "arbitrary where gradients are dependent"),
    Row("torchjd/CAGrad", "CAGrad", 2e-4, {}, (*ILL, *SHORT), f"{_EARLY}CAGrad", factor=1 + 0.4**2),
    Row("torchjd/NashMTL", "Nash-MTL", 1e-6, {}, _NO_ECOS, f"{_EARLY}FairGrad_a1"),
    Row("torchjd/FairGrad_a1", "FairGrad", 1e-5, _ONE, (*ILL, *SHORT), f"{_EARLY}FairGrad_a1"),
    Row("torchjd/FairGrad_a2", "FairGrad", 1e-6, {}, (*ILL, *SHORT), f"{_EARLY}FairGrad_a2"),
)

OTHERS = {  # recorded, but of no use for a comparison
    "MGDA_fsmtl": "ends after 20 steps, see exact/MGDA",
    "torchjd/MGDA": "ends after 100 steps, see exact/MGDA",
}


class Given(Draws):
    """Recorded draws of one solver: numbers of a flat array, or permutations, one after the other."""

    def __init__(self, recorded: Any) -> None:
        self.left = list(recorded)

    def normal(self, name: str, like: Tensor) -> Tensor:
        """See `Draws.normal`."""
        taken, self.left = self.left[: like.numel()], self.left[like.numel() :]
        return torch.tensor(taken, dtype=like.dtype).reshape(like.shape)

    uniform = normal

    def permutation(self, name: str, n: int) -> Sequence[int]:
        """See `Draws.permutation`."""
        return [int(i) for i in self.left.pop(0)]


class Jacobians:
    """The recorded Jacobians, by case, and distances of our directions from the recorded ones.

    Args:
        arrays: ``<case>/J`` [K, n] and ``<case>/<solver>/{weights,direction,grad}``.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.cases = [key.removesuffix("/J") for key in arrays if key.endswith("/J") and arrays[key].ndim == 2]
        self.sequences = [key.removesuffix("/J") for key in arrays if key.endswith("/J") and arrays[key].ndim == 3]

    def tensor(self, key: str) -> Tensor:
        """A recorded array."""
        return torch.from_numpy(self.arrays[key])

    def of(self, row: Row, kind: str = "direction") -> dict[str, float]:
        """The distance in every case that the row has."""
        there = [case for case in self.cases if not any(word in case for word in row.without)]
        recorded = {case: self._recorded(f"{case}/{_key(row)}", case, kind) for case in there}
        return {case: self._distance(row, case, found, kind) for case, found in recorded.items() if found is not None}

    def _recorded(self, key: str, case: str, kind: str) -> Tensor | None:
        if f"{key}/{kind}" in self.arrays:
            return self.tensor(f"{key}/{kind}")
        weights = f"{key}/weights"
        return self.tensor(weights) @ self.tensor(f"{case}/J") if kind != "grad" and weights in self.arrays else None

    def _distance(self, row: Row, case: str, theirs: Tensor, kind: str) -> float:
        """Relative to theirs; where the exact one of MGDA is nothing but rounding, to a hundredth of the gradients."""
        J = self.tensor(f"{case}/J")
        solver = make_solver(row.solver, Tasks(len(J), (J[0],)), row.hparams)
        if row.draws:
            solver.draws = Given(self.arrays[f"{case}/{_key(row).split('/')[-1]}/{row.draws}"])
        ours = combined(solver, J)
        ours = solver.finished_((ours,))[0] if kind == "grad" else ours
        least = self._recorded(f"{case}/exact/MGDA", case, "direction")
        nothing = least is not None and least.norm() <= 1e-9 * J.norm()
        size = theirs.norm().clamp_min(1e-2 * J.norm() if nothing else 0)
        off = (row.factor * ours - theirs).norm()
        return float(off / size) if off else 0.0


def combined(solver: Solver, J: Tensor, losses: Tensor | None = None) -> Tensor:
    """A solver's direction [n] of the rows of a Jacobian [K, n], all losses 1 where none are given."""
    rows = [(row.clone(),) for row in J]
    return solver.combine(torch.ones(len(J), dtype=J.dtype) if losses is None else losses, rows).direction[0]


def measure(_info: Mapping[str, Any], arrays: Arrays) -> list[Measured]:
    """Every recorded solver that the suite has, on every case that it answers."""
    found = Jacobians(arrays)
    rows = []
    for row in ROWS:
        for kind in ("direction", "grad"):
            distances = found.of(row, kind)
            if distances or kind == "direction":
                what = row.key if kind == "direction" else f"{row.key}, .grad"
                rows.append(largest(what, list(distances.values()), row.tolerance, row.why))
    compared = {_key(row) for row in ROWS}
    others = sorted({key.split("/", 1)[1].rpartition("/")[0] for key in arrays if key.split("/")[0] in found.cases})
    unknown = [name for name in others if name and name not in compared]
    return [*rows, *_sequences(found), *(not_compared(name, OTHERS.get(name, "unknown here")) for name in unknown)]


def _key(row: Row) -> str:
    """The name of a row's arrays: that of the row, without what is in brackets."""
    return row.key.split(" ")[0]


def _sequences(found: Jacobians) -> list[Measured]:
    """MoCo, which has a memory, and Nash-MTL, which has none here."""
    moco, nash = [], []
    for name in found.sequences:
        J, losses = found.tensor(f"{name}/J"), found.tensor(f"{name}/losses")
        solver = make_solver("MoCo", Tasks(J.shape[1], (J[0, 0],)))
        ours = torch.stack([combined(solver, rows, losses[t]) for t, rows in enumerate(J)])
        moco.append(_apart(ours, found.tensor(f"{name}/MoCo/direction")))
        exact = found.tensor(f"{name}/exact/NashMTL/weights")
        alone = [make_solver("Nash-MTL", Tasks(J.shape[1], (J[0, 0],))) for _ in J]
        ours = torch.stack([combined(one, rows) for one, rows in zip(alone, J, strict=True)])
        nash.append(_apart(ours, torch.einsum("tk,tkn->tn", exact, J)))
    return [largest("sequences, MoCo", moco, 1e-9), largest("sequences, exact/NashMTL", nash, EXACT)]


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())
