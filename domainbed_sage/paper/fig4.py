"""Figure 4 and Appendix D: sharpness measures of one function whose weights are rescaled.

The network is Linear(2, 64), ReLU, Linear(64, 2), trained on two circles; α W₁, α b₁, W₂ / α compute the same function
for every α. A measure S(α) = L(θ + ε) - L(θ) is invariant if it does not depend on α. All in double precision.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from domainbed_sage.paper.drawing import LOOKS, SMALL, Part, drawn
from domainbed_sage.paper.findings import Finding, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

Vector: TypeAlias = "tuple[Tensor, ...]"
Ascent: TypeAlias = "Callable[[Vector, Vector], Vector]"

RHO = 0.05
ALPHAS = tuple(10 ** (k / 10 - 1) for k in range(21))  # 0.1 to 10
NETWORKS, FEW = 5, 2
EXACT, CLOSE = 1e-9, 0.5  # deviations that are rounding, and that «approximately» may mean
NEARLY = "approximately invariant to the rescaling"
LAYERWISE = "no polar factor, biases scaled"
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


def _sage(
    theta: Vector,
    g: Vector,
    rho: float = RHO,
    *,
    biases: str = "as printed",
    scale_by_weight: bool = True,
    orthogonalize: bool = True,
) -> Vector:
    """SAGE's ε with the exact polar factor; vectors move by ρ g / ‖g‖, by ρ ‖b‖ g / ‖g‖ (``scaled``), or not."""
    from domainbed_sage.geometry.perturb import spectral_ascent

    epsilon = spectral_ascent(
        theta, g, rho, method="svd_rank", scale_by_weight=scale_by_weight, orthogonalize=orthogonalize
    )
    factors = [{"as printed": 1.0, "scaled": float(w.norm()), "unmoved": 0.0}[biases] for w in theta]
    return tuple(e if w.ndim == 2 else factor * e for w, e, factor in zip(theta, epsilon, factors, strict=True))


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
        LAYERWISE,
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


def check(seed: int, quick: bool) -> Part:
    """Findings about Figure 4 and Appendix D, and the picture."""
    networks = FEW if quick else NETWORKS
    found = measured(seed, networks)
    return Part(findings(found, networks), drawn(2.1, lambda figure: _draw(figure, found)))


def findings(found: Curves, networks: int) -> list[Finding]:
    """A finding for each measure, and two about what the text says."""
    how = (
        f"{networks} networks of 2-{HIDDEN}-2 on two circles (radii 1 and {INNER}, noise {NOISE}, {POINTS} points), "
        f"{STEPS} steps of Adam at {LR}; {len(ALPHAS)} values of α from 0.1 to 10, ρ = {RHO}, double precision. "
        "Largest |S(α) / S(1) - 1|: median over networks, and largest."
    )
    each = [_of_measure(measure, found, how) for measure in MEASURES]
    return [*each, _flat_for_large(found, how), _reason(found, how)]


def _of_measure(measure: Measure, found: Curves, how: str) -> Finding:
    import numpy as np

    off = found.deviation(measure.name)
    median, most, least = float(np.median(off)), float(off.max()), float(off.min())
    near = float(found.deviation(measure.name, 0.8).max())
    is_exact, is_near = most < EXACT, near < CLOSE
    claim, holds = _claim(measure, is_exact=is_exact, scale_dependent=median > 1)
    text = f"{measure.words}: S deviates by {median:.2g} ({most:.2g})"
    text += ", rounding alone: exactly invariant." if is_exact else f"; for α ≥ 0.8 by {near:.2g} at most."
    verdict: Verdict = "holds" if holds else "holds in part" if claim == NEARLY and is_near else "does not hold"
    numbers = {"median": median, "largest": most, "smallest": least, "largest_from_0.8": near}
    return Finding(f"Figure 4, {measure.name}", claim, text, verdict, how, numbers)


def _claim(measure: Measure, *, is_exact: bool, scale_dependent: bool) -> tuple[str, bool]:
    """What the paper says of a measure like this one, and whether it is so."""
    if measure.name.startswith("SAGE") and "without" not in measure.name:
        return NEARLY, is_exact
    if measure.name.startswith(("SAM", "ASAM")):
        return "depends on the scale of the weights", scale_dependent
    return "invariance comes from the polar factor and ‖W‖_F together", False if is_exact else scale_dependent


def _flat_for_large(found: Curves, how: str) -> Finding:
    import numpy as np

    S = found.curves["SAM"]
    ends = {"small": S[:, 0] / S[:, len(ALPHAS) // 2], "large": S[:, -1] / S[:, len(ALPHAS) // 2]}
    grown = int((ends["large"] > 1).sum())
    low, high = (float(np.median(ends[name])) for name in ("small", "large"))
    return Finding(
        "Appendix D, SAM for large α",
        "scaling weights up, α ≫ 1, makes SAM's estimate artificially flat",
        f"S(10) / S(1) is {high:.3g} (median), above 1 in {grown} of {len(S)} networks; S(0.1) / S(1) is {low:.3g}. "
        "The curve is a U, as the appendix's own footnote says: W₂ shrinks while W₁ grows.",
        "does not hold" if grown > len(S) / 2 else "holds in part",
        how,
        {"small_alpha": low, "large_alpha": high, "grown": float(grown)},
    )


def _reason(found: Curves, how: str) -> Finding:
    import numpy as np

    without = {name: float(np.median(found.deviation(name))) for name in (LAYERWISE, "SAGE without ‖W‖_F")}
    return Finding(
        "Appendix D, the reason",
        "the spectral perturbation is scale-adaptive",
        f"Without the polar factor, ρ ‖W‖ g / ‖g‖ for each tensor, S deviates by {without[LAYERWISE]:.1g}: exactly "
        f"invariant. With the polar factor but without ‖W‖_F by {without['SAGE without ‖W‖_F']:.2g}. The invariance "
        "comes from ‖W‖_F alone, and the vectors' ρ g / ‖g‖ breaks it.",
        "holds in part",
        how,
        without,
    )


def _draw(figure: "Figure", found: Curves) -> None:
    panels = figure.subplots(1, 2, sharey=True)
    printed = {"SAM": "SAM", "ASAM, one factor |w|": "ASAM, one factor |w|", "SAGE": "SAGE"}
    exact = {"SAM": "SAM", "SAGE": "SAGE", "SAGE, biases scaled": "SAGE, ρ ‖b‖ for biases", "ASAM": "ASAM"}
    for panel, names, title in zip(panels, (printed, exact), ("as printed", "as found"), strict=True):
        for name, label in names.items():
            _curve(panel, found.curves[name], label)
        panel.set(xscale="log", yscale="log", ylim=(0.2, 2e3))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_title(title, fontsize=6.5, pad=3)
        panel.set_xlabel("α", fontsize=6)
        panel.legend(frameon=False, fontsize=SMALL, loc="upper center")
        panel.minorticks_off()
    panels[0].set_ylabel("S(α) / S(1)", fontsize=6)


def _curve(panel: "Axes", S: Any, label: str) -> None:
    """The median over networks, and the band of all."""
    import numpy as np

    ratio, look = S / S[:, [len(ALPHAS) // 2]], LOOKS[label.partition(",")[0]]
    how: Any = {"lw": 1.1, "ls": (0, (1.5, 1.5)) if label.startswith("ASAM") else "-"}
    how |= {"lw": 3, "alpha": 0.35} if label.startswith("SAGE,") else {}
    panel.plot(ALPHAS, np.median(ratio, axis=0), color=look.colour, label=label, **how)
    panel.fill_between(ALPHAS, ratio.min(0), ratio.max(0), color=look.colour, alpha=0.12, lw=0)
