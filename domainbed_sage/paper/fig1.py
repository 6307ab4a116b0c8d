"""Figure 1: the ascents of SAM and SAGE on a quadratic of two weights, the diagonal of a matrix W.

L(W) = (h₁ w₁² + h₂ w₂²) / 2. The gradient is diag(h₁ w₁, h₂ w₂): its singular values are the |h_i w_i|, and its polar
factor is diag(±1, ±1). A plane of two weights that are a single column would show nothing: see the last finding.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from domainbed_sage.paper.drawing import LOOKS, SMALL, Part, drawn
from domainbed_sage.paper.findings import Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

H = (1.0, 8.0)  # h₁, h₂
W = (1.6, 0.45)
RADIUS, LR, NOISE = 0.35, 0.12, 0.28  # of both ascents; of the step; of the circle
TURNS = 720  # directions of the gradient in a full turn


class Step(NamedTuple):
    """Where an ascent goes from W, and where the step with the gradient found there lands; each [2]."""

    epsilon: "Tensor"
    landed: "Tensor"


def step(method: str) -> Step:
    """SAM's step, or SAGE's; both ascents move by `RADIUS` in the larger direction."""
    import torch

    h, w = torch.tensor(H, dtype=torch.float64), torch.tensor(W, dtype=torch.float64)
    epsilon = ascents(h * w, w)[method]
    return Step(epsilon, w - LR * h * (w + epsilon))


def ascents(g: "Tensor", w: "Tensor") -> "dict[str, Tensor]":
    """ε of both methods for weights and gradients on the diagonal [2], of length `RADIUS` and √2 `RADIUS`."""
    import torch

    from domainbed_sage.geometry.perturb import l2_ascent_, spectral_ascent

    (sam,) = l2_ascent_((g.clone(),), RADIUS)
    (sage,) = spectral_ascent((torch.diag(w),), (torch.diag(g),), RADIUS / float(w.norm()), method="svd_rank")
    return {"SAM": sam, "SAGE": sage.diagonal()}


def check(seed: int, quick: bool) -> Part:
    """Findings about the caption, and the picture."""
    del seed, quick
    return Part(findings(), drawn(1.75, _draw))


def findings() -> list[Finding]:
    """What the caption says of ε, computed."""
    import torch

    h, w = torch.tensor(H, dtype=torch.float64), torch.tensor(W, dtype=torch.float64)
    here = ascents(h * w, w)
    angles = [2 * math.pi * (n + 0.5) / TURNS for n in range(TURNS)]
    around = [ascents(torch.tensor([math.cos(t), math.sin(t)], dtype=torch.float64), w) for t in angles]
    places = {m: len({tuple(round(float(x), 9) for x in found[m]) for found in around}) for m in here}
    column, g = w[:, None], (h * w)[:, None]
    cosine = _column_cosine(column, g)
    how = f"L = ({H[0]:g} w₁² + {H[1]:g} w₂²) / 2 with W = diag({W[0]}, {W[1]}); the polar factor by SVD."
    ratio = {m: float((e[0] / e[1]).abs()) for m, e in here.items()}
    return [
        Finding(
            "Figure 1, equal magnitude",
            "SAGE's ε has the same magnitude in every singular direction of the gradient, SAM's has not",
            f"The two components of ε are as 1 : {1 / ratio['SAGE']:.3g} with SAGE, and as 1 : {1 / ratio['SAM']:.3g} "
            f"with SAM, which follows the gradient.",
            "holds",
            how,
            {f"ratio_{m}": value for m, value in ratio.items()},
        ),
        Finding(
            "Figure 1, dashed circle",
            "SAGE's ε probes all directions of the plane with equal magnitude, SAM's does not",
            f"While the gradient turns once round, in {TURNS} directions, SAM's ε takes {places['SAM']} places on a "
            f"circle and SAGE's {places['SAGE']}, the corners of a square: a single ε is one direction, and the polar "
            "factor knows fewer of them.",
            "does not hold",
            f"{how} The gradient is turned through all directions, W stays.",
            {f"places_{m}": float(n) for m, n in places.items()},
        ),
        Finding(
            "Figure 1, a column of weights",
            "the polar factor changes the direction of the perturbation",
            f"Where W is a single column, its gradient has rank one, and SAGE's ε has the direction of SAM's: cosine "
            f"{cosine:.6f}. Only from two singular values on do the two differ.",
            "holds in part",
            f"The same two weights as a matrix of 2 x 1; h = {H}.",
            {"cosine_column": cosine},
        ),
    ]


def _column_cosine(W: "Tensor", g: "Tensor") -> float:
    from domainbed_sage.geometry.perturb import spectral_ascent

    (epsilon,) = spectral_ascent((W,), (g,), RADIUS, method="svd_rank")
    return float((epsilon * g).sum() / epsilon.norm() / g.norm())


def _draw(figure: "Figure") -> None:
    panels = figure.subplots(1, 2, sharey=True)
    for panel, method, title in zip(
        panels, ("SAM", "SAGE"), ("(a) SAM: ρ g / ‖g‖", "(b) SAGE: ρ ‖W‖ U Vᵀ"), strict=True
    ):
        _contours(panel)
        _arrows(panel, method)
        panel.set_title(title, fontsize=6.5, pad=3)
        panel.set_xlabel("w₁", fontsize=6)
        panel.set_aspect("equal")
        panel.grid(False)
    panels[0].set_ylabel("w₂", fontsize=6)


def _contours(panel: "Axes") -> None:
    import numpy as np

    x, y = np.meshgrid(np.linspace(-0.4, 2.3, 200), np.linspace(-1.15, 1.15, 200))
    panel.contour(
        x, y, (H[0] * x**2 + H[1] * y**2) / 2, levels=[0.1, 0.4, 0.9, 1.6, 2.5, 3.6], colors="#c4c4c4", linewidths=0.5
    )
    panel.plot(0, 0, "+", color="#767676", ms=4, mew=0.8)


def _arrows(panel: "Axes", method: str) -> None:
    from matplotlib.patches import Circle, Rectangle

    colour, found = LOOKS[method].colour, step(method)
    tip = (W[0] + float(found.epsilon[0]), W[1] + float(found.epsilon[1]))
    landed = (float(found.landed[0]), float(found.landed[1]))
    how: Any = {"fill": False, "ls": (0, (3, 2)), "lw": 0.8, "ec": colour}
    corner = (W[0] - RADIUS, W[1] - RADIUS)
    panel.add_patch(Circle(W, RADIUS, **how) if method == "SAM" else Rectangle(corner, 2 * RADIUS, 2 * RADIUS, **how))
    panel.annotate("", tip, W, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.0, "shrinkA": 0, "shrinkB": 0})
    panel.plot([W[0], landed[0]], [W[1], landed[1]], color=colour, lw=0.8, ls=":")
    panel.plot(*W, "o", color="#333333", ms=2.5)
    panel.plot(*landed, "*", color=colour, ms=6)
    panel.annotate("ε", tip, (2, 1), textcoords="offset points", fontsize=6.5, color=colour)
    panel.annotate("W", W, (-9, -2), textcoords="offset points", fontsize=6)
    if method == "SAGE":
        panel.add_patch(Circle(landed, NOISE, fill=False, lw=0.8, ec=LOOKS["SGLD"].colour))
        panel.annotate(
            "noise β ξ",
            landed,
            (-8, -17),
            textcoords="offset points",
            fontsize=SMALL,
            ha="center",
            color=LOOKS["SGLD"].colour,
        )
