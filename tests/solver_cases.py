"""Jacobians and losses that the authors' codes were recorded on, and solvers to run on them."""

from pathlib import Path

import numpy as np
import torch

from domainbed_sage.algorithms.solvers import GramSolver, Tasks, make_solver

FOLDER = Path(__file__).parent / "data" / "mtl"
RECORDED, LOSSES = (dict(np.load(FOLDER / f"{name}.npz")) for name in ("aggregation", "losses"))
SEQUENCES = sorted({key.split("/")[0] for key in RECORDED if key.startswith("seq")})

# Every solver, with what it is to be tested with beside its defaults.
VARIANTS = [
    ("LS", {}),
    ("SI", {}),
    ("RLW", {}),
    ("DWA", {"iteration_window": 2}),
    ("DWA", {"reading": "epoch"}),
    ("UW", {}),
    ("MGDA", {}),
    ("MGDA", {"solution": "authors"}),
    ("PCGrad", {}),
    ("GradDrop", {}),
    ("IMTL-G", {}),
    ("CAGrad", {}),
    ("CAGrad", {"c": 0.0}),
    ("MoCo", {"moco_rho": 0.1}),
    ("Nash-MTL", {}),
    ("FairGrad", {}),
    ("FairGrad", {"alpha": 0.5}),
    ("FairGrad", {"solution": "authors"}),
    ("FAMO", {}),
]


def recorded(key):
    return torch.from_numpy(RECORDED[key])


def vectors(J):
    """The rows of a Jacobian [K, n] as vectors of two tensors, in memory of their own."""
    half = J.shape[1] // 2
    return [(row[:half].clone(), row[half:].clone().reshape(1, -1)) for row in J]


def flat(vector):
    return torch.cat([t.reshape(-1) for t in vector])


def solver(name, J, **hparams):
    """For the rows of a Jacobian."""
    return make_solver(name, Tasks(len(J), vectors(J)[0]), hparams)


def solved(name, G, **hparams):
    """The weights of a solver of Gram matrices."""
    made = make_solver(name, Tasks(len(G), (G,)), hparams)
    assert isinstance(made, GramSolver)
    return made.weights(G)


def combined(made, J, losses=None):
    """The flat direction of the rows of a Jacobian."""
    return flat(made.combine(torch.ones(len(J), dtype=J.dtype) if losses is None else losses, vectors(J)).direction)


def gaussian(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
