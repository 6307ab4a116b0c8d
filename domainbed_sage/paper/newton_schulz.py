"""Equation 7: how near five Newton-Schulz iterations come to the polar factor U Vᵀ."""

import math
from typing import TYPE_CHECKING, NamedTuple

from domainbed_sage.core.seeding import seed_hash
from domainbed_sage.paper.drawing import Part
from domainbed_sage.paper.findings import Finding

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 768  # of the ViT-B/16's square matrices
STEPS, ENOUGH = 5, 15


class Distance(NamedTuple):
    """What an iteration gives: its smallest, median and largest singular value, and its cosine to U Vᵀ."""

    smallest: float
    median: float
    largest: float
    cosine: float


def matrices(seed: int, side: int = SIDE) -> "dict[str, Tensor]":
    """A Gaussian matrix, and one of singular values 1, 1/2, 1/3, … with random directions, in double precision."""
    import torch

    rng = torch.Generator().manual_seed(seed_hash(seed, "newton-schulz"))
    G = torch.randn(side, side, generator=rng, dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(torch.randn(side, side, generator=rng, dtype=torch.float64))
    return {"Gaussian": G, "decaying": (U / torch.arange(1, side + 1)) @ Vh}


def distances(G: "Tensor") -> dict[str, Distance]:
    """Of the gradient itself, of Equation 7 after `STEPS` and `ENOUGH` iterations, and of Algorithm 1's quintic."""
    import torch

    from domainbed_sage.geometry.polar import polar_factor

    U, _, Vh = torch.linalg.svd(G)
    found = {
        "gradient": G / G.norm(),
        "Eq. 7": polar_factor(G, "cubic", STEPS),
        "Eq. 7, 15": polar_factor(G, "cubic", ENOUGH),
        "quintic": polar_factor(G, "quintic", STEPS),
    }
    polar = U @ Vh
    measured = {}
    for name, X in found.items():
        sigma = torch.linalg.svdvals(X)
        cosine = float((X * polar).sum() / X.norm() / polar.norm())
        measured[name] = Distance(float(sigma[-1]), float(sigma.median()), float(sigma[0]), cosine)
    return measured


def orders() -> list[float]:
    """log e_{k+1} / log e_k of the distance e = 1 - σ along Equation 7, from e = 0.1: it tends to the order."""
    e, found = 0.1, []
    for _ in range(4):
        after = e**2 * (3 - e) / 2  # 1 - σ (3 - σ²) / 2 with σ = 1 - e, without cancellation
        found.append(math.log(after) / math.log(e))
        e = after
    return found


def findings(seed: int, side: int = SIDE) -> list[Finding]:
    """What Section 3.1 says of Equation 7, computed."""
    by_matrix = {name: distances(G) for name, G in matrices(seed, side).items()}
    gaussian, decaying = by_matrix["Gaussian"], by_matrix["decaying"]
    order = orders()
    how = f"Matrices of {side} x {side} in double precision from G / ‖G‖_F: Gaussian, and with singular values 1/i."
    numbers = {
        f"{field}_{name}_{matrix}": value
        for matrix, own in by_matrix.items()
        for name, d in own.items()
        for field, value in d._asdict().items()
    }
    return [
        Finding(
            "Equation 7, order of convergence",
            "the iteration converges cubically",
            f"With e = 1 - σ, e becomes (3 e² - e³) / 2: quadratic. log e' / log e along the way: "
            f"{', '.join(f'{o:.3f}' for o in order)}, which tends to 2.",
            "does not hold",
            "One singular value from σ = 0.9, four iterations.",
            {f"order_{k}": o for k, o in enumerate(order)},
        ),
        Finding(
            "Equation 7, five iterations",
            "T = 5 iterations approximate the polar factor U Vᵀ",
            f"Gaussian: largest singular value {gaussian['Eq. 7'].largest:.2f}, cosine to U Vᵀ "
            f"{gaussian['Eq. 7'].cosine:.3f}; the gradient itself has {gaussian['gradient'].cosine:.3f}. Decaying: "
            f"{decaying['Eq. 7'].cosine:.2f} and {decaying['gradient'].cosine:.2f}. Small singular values grow by no "
            f"more than 1.5⁵ = {1.5**STEPS:.1f}; with {ENOUGH} iterations the cosines are "
            f"{gaussian['Eq. 7, 15'].cosine:.3f} and {decaying['Eq. 7, 15'].cosine:.3f}.",
            "does not hold",
            how,
            numbers,
        ),
        Finding(
            "Equation 7, the quintic of Algorithm 1",
            "all singular values become one",
            f"Five quintic steps, «Muon logic»: cosine to U Vᵀ {gaussian['quintic'].cosine:.3f} (Gaussian) and "
            f"{decaying['quintic'].cosine:.3f} (decaying); singular values from {gaussian['quintic'].smallest:.2f} to "
            f"{gaussian['quintic'].largest:.2f} (Gaussian).",
            "holds in part",
            how,
        ),
    ]


def check(seed: int, quick: bool) -> Part:
    """Findings alone; of smaller matrices where it has to be quick."""
    return Part(findings(seed, SIDE // 4 if quick else SIDE))
