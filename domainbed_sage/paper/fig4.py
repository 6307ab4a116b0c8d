"""Figure 4 and Appendix D: sharpness measures of one function whose weights are rescaled.

The network is Linear(2, 64), ReLU, Linear(64, 2), trained on two circles; α W₁, α b₁, W₂ / α compute the same function
for every α. A measure S(α) = L(θ + ε) - L(θ) is invariant if it does not depend on α. All in double precision.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Vector: TypeAlias = "tuple[Tensor, ...]"
Ascent: TypeAlias = "Callable[[Vector, Vector], Vector]"

RHO = 0.05
ALPHAS = tuple(10 ** (k / 10 - 1) for k in range(21))  # 0.1 to 10
HIDDEN, STEPS, LR, POINTS, NOISE, INNER = 64, 2000, 1e-2, 400, 0.1, 0.5


class Measure(NamedTuple):
    """A sharpness measure: its name, what its ε is, and how it is said in a table."""

    name: str
    ascent: Ascent
    words: str


@dataclass(frozen=True)
class Curves:
    """S(α) of every measure and network.

    Attributes:
        curves: S by name of the measure [networks, α].
        losses: L(θ) of each network.
    """

    curves: Mapping[str, Any]
    losses: Sequence[float]

    def deviation(self, name: str, low: float = 0.0, high: float = math.inf) -> Any:
        """Largest |S(α) / S(1) - 1| over the α between two bounds, of each network."""
        S = self.curves[name]
        inside = [i for i, alpha in enumerate(ALPHAS) if low <= alpha * (1 + 1e-9) and alpha <= high * (1 + 1e-9)]
        return abs(S / S[:, [len(ALPHAS) // 2]] - 1)[:, inside].max(1)


def _sam(theta: Vector, g: Vector, rho: float = RHO) -> Vector:
    from domainbed_sage.geometry.perturb import l2_ascent_

    del theta
    return l2_ascent_(tuple(t.clone() for t in g), rho)


def _asam(theta: Vector, g: Vector, eta: float = 0.0, *, biases: bool = True, powers: int = 2) -> Vector:
    """ρ T² g / ‖T g‖ with T = |w| + η; T = 1 for vectors unless `biases`; with one power, ρ T g / ‖T g‖."""
    from domainbed_sage.geometry.vectors import norm, scale_

    T = [w.abs() + eta if biases or w.ndim == 2 else w.new_ones(()) for w in theta]
    length = norm(tuple(t * d for t, d in zip(T, g, strict=True)))
    return scale_(RHO / float(length), tuple(t**powers * d for t, d in zip(T, g, strict=True)))


def _sage(theta: Vector, g: Vector, rho: float = RHO, *, biases: str = "as printed", **ablation: bool) -> Vector:
    """SAGE's ε with the exact polar factor; vectors move by ρ g / ‖g‖, by ρ ‖b‖ g / ‖g‖ (``scaled``), or not."""
    from domainbed_sage.geometry.perturb import spectral_ascent

    epsilon = spectral_ascent(theta, g, rho, method="svd_rank", **ablation)
    factor = {
        "as printed": lambda b: 1.0,
        "scaled": lambda b: float(b.norm()),
        "unmoved": lambda b: 0.0,
    }[biases]
    return tuple(e if w.ndim == 2 else factor(w) * e for w, e in zip(theta, epsilon, strict=True))


MEASURES = (
    Measure("SAM", _sam, "ρ g / ‖g‖"),
    Measure("ASAM", _asam, "T = |w| for every parameter, as in Kwon et al. without their exception for biases"),
    Measure("ASAM, η = 0.01", partial(_asam, eta=0.01), "T = |w| + 0.01 for every parameter"),
    Measure("ASAM, authors' code", partial(_asam, eta=0.01, biases=False), "T = |w| + 0.01, and 1 for biases"),
    Measure("ASAM, one factor |w|", partial(_asam, powers=1), "ρ |w| g / ‖|w| g‖, a slip that is easily made"),
    Measure("SAGE", _sage, "as printed: ρ ‖W‖_F U Vᵀ, and ρ g / ‖g‖ for biases"),
    Measure("SAGE, ρ = 0.001", partial(_sage, rho=0.001), "as printed, with a smaller radius"),
    Measure("SAGE, biases unmoved", partial(_sage, biases="unmoved"), "matrices alone: ρ ‖W‖_F U Vᵀ"),
    Measure("SAGE, biases scaled", partial(_sage, biases="scaled"), "biases move by ρ ‖b‖ g / ‖g‖"),
    Measure("SAGE without ‖W‖_F", partial(_sage, scale_by_weight=False), "ρ U Vᵀ"),
    Measure(
        "no polar factor, biases scaled",
        partial(_sage, biases="scaled", orthogonalize=False),
        "ρ ‖W‖ g / ‖g‖ for each tensor",
    ),
)


def circles(seed: int) -> "tuple[Tensor, Tensor]":
    """Points on two circles of radius 1 and `INNER`, with noise [POINTS, 2], and the circle of each [POINTS]."""
    import numpy as np
    import torch

    from domainbed_sage.core.seeding import generator

    rng = generator(seed, "circles")
    angle, outer = rng.uniform(0, 2 * math.pi, POINTS), rng.permutation(POINTS) % 2
    radius = outer + (1 - outer) * INNER
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return torch.tensor(points + NOISE * rng.standard_normal((POINTS, 2))), torch.tensor(outer)


def trained(seed: int, steps: int = STEPS) -> "tuple[Vector, Callable[[Vector], Tensor]]":
    """W₁, b₁, W₂, b₂ after full-batch Adam, and the loss as a function of them."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    x, y = circles(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)).double()
    theta = tuple(network.parameters())
    optimizer = torch.optim.Adam(theta, LR)

    def loss(at: Vector) -> "Tensor":
        W1, b1, W2, b2 = at
        return F.cross_entropy(F.linear(F.relu(F.linear(x, W1, b1)), W2, b2), y)

    for _ in range(steps):
        optimizer.zero_grad()
        loss(theta).backward()
        optimizer.step()
    return tuple(p.detach() for p in theta), loss


def measured(seed: int, networks: int) -> Curves:
    """S(α) of every measure at `networks` trained networks."""
    import numpy as np
    import torch

    from domainbed_sage.core.seeding import seed_hash

    curves, losses = {measure.name: np.empty((networks, len(ALPHAS))) for measure in MEASURES}, []
    for n in range(networks):
        (W1, b1, W2, b2), loss = trained(seed_hash(seed, "figure 4", n))
        losses.append(float(loss((W1, b1, W2, b2))))
        for i, alpha in enumerate(ALPHAS):
            theta = tuple(p.clone().requires_grad_() for p in (alpha * W1, alpha * b1, W2 / alpha, b2))
            before = loss(theta)
            g = torch.autograd.grad(before, theta)
            with torch.no_grad():
                for name, ascent, _ in MEASURES:
                    epsilon = ascent(theta, g)
                    moved = tuple(p + e for p, e in zip(theta, epsilon, strict=True))
                    curves[name][n, i] = float(loss(moved)) - float(before)
    return Curves(curves, losses)
