"""Figure 2: which of two minima is reached, on `landscape`, by many runs of each method and not by one path."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from domainbed_sage.core.seeding import generator
from domainbed_sage.paper.drawing import LOOKS, SMALL, Part, drawn
from domainbed_sage.paper.findings import Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from domainbed_sage.paper.landscape import Array, Method

NOISES = (0.5, 0.75, 1.0, 1.25, 1.5)  # γ, and half of SGLD's σ: in A's basin S is about -1, and β about 2 γ
RADIUS = 0.1  # SAM's
RUNS, FEW = 200, 50
NEAR = 0.3  # of a minimum
SHOWN = 1.5  # the γ whose paths are drawn


class Share(NamedTuple):
    """Runs of a method that end nearer to B, with Wilson's interval at 95 %, and shares of all runs.

    Attributes:
        ends: nearer to B at the last step.
        low, high: interval of it.
        visits: ever within `NEAR` of B.
        stays: within `NEAR` of B at the last step.
    """

    ends: float
    low: float
    high: float
    visits: float
    stays: float


def methods() -> "list[Method]":
    """ERM, SAM with its radius, then the noise of SAGE and of SGLD at every size."""
    from domainbed_sage.paper.landscape import Method

    ours = [Method("SAGE", gamma=g) for g in NOISES]
    return [Method("ERM"), Method("SAM", rho=RADIUS), *ours, *(Method("SGLD", sigma=2 * g) for g in NOISES)]


def share(path: "Array") -> Share:
    """Where the runs of a method go; path [steps + 1, runs, 2]."""
    import numpy as np
    from scipy.stats import binomtest

    from domainbed_sage.paper.landscape import A, B

    to_a, to_b = (np.sqrt(((path - minimum) ** 2).sum(-1)) for minimum in (A, B))
    ends = to_b[-1] < to_a[-1]
    interval = binomtest(int(ends.sum()), len(ends)).proportion_ci(method="wilson")
    visits, stays = (to_b < NEAR).any(0).mean(), (to_b[-1] < NEAR).mean()
    return Share(float(ends.mean()), float(interval.low), float(interval.high), float(visits), float(stays))


def check(seed: int, quick: bool) -> Part:
    """Findings about the claims of the caption and of Section 3.2, and the picture."""
    from domainbed_sage.paper.landscape import paths

    every, runs = methods(), FEW if quick else RUNS
    walked = paths(every, runs, generator(seed, "figure 2"))
    shares = [share(walked[:, m]) for m in range(len(every))]
    first = {method.name: walked[:, m, 0] for m, method in enumerate(every) if _is_shown(method)}
    return Part(findings(every, shares, runs), drawn(2.9, lambda figure: _draw(figure, every, shares, first)))


def _is_shown(method: "Method") -> bool:
    return max(method.gamma, method.sigma / 2) in (0, SHOWN)


def findings(every: "Sequence[Method]", shares: Sequence[Share], runs: int) -> list[Finding]:
    """The caption's claims beside the shares."""
    from domainbed_sage.paper import landscape

    by = {(m.name, max(m.gamma, m.sigma / 2)): s for m, s in zip(every, shares, strict=True)}
    numbers = {
        f"{field}_{name}_{noise:g}": value for (name, noise), s in by.items() for field, value in s._asdict().items()
    }
    how = (
        f"{runs} runs of {landscape.STEPS} steps for each method and noise on a landscape of ours; the paper gives no "
        "formula, start, rate, radius, noise or number of steps. Two wells of equal depth; domains conflict around A."
    )
    still, ours, sgld = [by["ERM", 0], by["SAM", 0]], by["SAGE", SHOWN], by["SGLD", SHOWN]
    least = {name: [by[name, noise] for noise in NOISES] for name in ("SAGE", "SGLD")}
    weak = [noise for noise, s in zip(NOISES, least["SAGE"], strict=True) if s.ends < 0.5]
    return [
        Finding(
            "Figure 2, ERM and SAM",
            "ERM and SAM converge to A",
            "Both move without noise, on one path each, and end "
            + ("at A." if max(s.ends for s in still) == 0 else "not at A both."),
            "holds" if max(s.ends for s in still) == 0 else "does not hold",
            how,
            numbers,
        ),
        Finding(
            "Figure 2, gradient-aligned noise",
            "noise that grows with disagreement escapes to B and stays",
            f"With γ = {SHOWN:g}, {_words(ours)} of the runs end nearer to B, {ours.stays:.0%} within {NEAR} of it. It "
            f"takes a large γ: at γ = {', '.join(f'{n:g}' for n in weak) or 'none'} fewer than half of them do.",
            "holds" if not weak else "holds in part",
            how,
        ),
        Finding(
            "Figure 2, only gradient-aligned noise",
            "SGLD converges to A, only gradient-aligned noise escapes",
            f"SGLD with the same noise as that of SAGE in A's basin (σ = 2γ = {2 * SHOWN:g}) comes within {NEAR} of B "
            f"in {sgld.visits:.0%} of its runs, and {_words(sgld)} end nearer to B: it escapes as well, and goes on "
            f"wandering ({sgld.stays:.0%} within {NEAR} at the end). It stays in A only with too little noise. What "
            "is peculiar to SAGE's noise is that it ends where the domains agree.",
            "holds in part",
            how,
        ),
        _vanishing(),
    ]


def _words(s: Share) -> str:
    return f"{s.ends:.0%} ({s.low:.0%} to {s.high:.0%})"


def _vanishing() -> Finding:
    """S at the two minima of the mean loss and beside them."""
    import numpy as np

    from domainbed_sage.paper.landscape import A, B, agreement, mean_gradient

    found: dict[str, float] = {}
    for name, near in (("A", A), ("B", B)):
        at = near.copy()
        for _ in range(2000):
            at = at - 0.1 * mean_gradient(at)
        found |= {f"S_{name}": float(agreement(at)), f"S_beside_{name}": float(agreement(at + np.array([0.1, 0.1])))}
    return Finding(
        "Section 3.2, vanishing noise",
        "when gradients are well aligned the noise vanishes",
        f"At the minimum of the mean loss near B the domain gradients are each other's opposites, S = "
        f"{found['S_B']:.3f}, as at every stationary point of two domains, and the noise is at its largest, 2γ; 0.14 "
        f"beside it S is {found['S_beside_B']:.2f} (near A: {found['S_A']:.3f} and {found['S_beside_A']:.2f}).",
        "holds in part",
        "The minima by 2000 steps of gradient descent; S there, and 0.1 to the right of and above them.",
        found,
    )


def _draw(figure: "Figure", every: "Sequence[Method]", shares: Sequence[Share], first: "dict[str, Array]") -> None:
    panels = figure.subplot_mosaic([["loss", "S"], ["shares", "shares"]], height_ratios=[0.68, 1.0])
    _map(panels["loss"], first, of_loss=True)
    _map(panels["S"], first, of_loss=False)
    panels["loss"].set_title("mean loss", fontsize=6.5, pad=3)
    panels["S"].set_title("agreement S: blue 1, red -1", fontsize=6.5, pad=3)
    _shares(panels["shares"], every, shares)


def _map(panel: "Axes", first: "dict[str, Array]", *, of_loss: bool) -> None:
    import numpy as np
    from matplotlib.patheffects import withStroke

    from domainbed_sage.paper.landscape import START, A, B, agreement, losses

    x, y = np.meshgrid(np.linspace(-2.4, 2.4, 160), np.linspace(-1.6, 1.6, 120))
    at = np.stack([x, y], axis=-1)
    if of_loss:
        panel.contour(x, y, sum(losses(at)) / 2, levels=14, colors="#b5b5b5", linewidths=0.5, linestyles="solid")
    else:
        panel.imshow(
            agreement(at), origin="lower", extent=(-2.4, 2.4, -1.6, 1.6), cmap="RdBu", vmin=-1, vmax=1, alpha=0.75
        )
    for name, path in first.items():
        how: Any = {"ls": "", "marker": ".", "ms": 1.8, "mew": 0} if name == "SGLD" else {"lw": 1.2}
        how |= {"lw": 0.5, "zorder": 3} if name == "SAGE" else {}
        panel.plot(*path[:: 5 if name == "SGLD" else 1].T, color=LOOKS[name].colour, **how)
    panel.plot(*START, "*", color="#333333", ms=6)
    around = [withStroke(linewidth=1.5, foreground="w")]
    for name, place in (("A", A), ("B", B)):
        panel.plot(*place, "o", color="#333333", ms=2.5)
        how = {"fontsize": 7, "fontweight": "bold", "path_effects": around}
        panel.annotate(name, (place[0], place[1]), (7, -15), textcoords="offset points", **how)
    panel.annotate("start", (START[0], START[1]), (-4, -2), textcoords="offset points", ha="right", fontsize=SMALL)
    panel.set(xlim=(-2.4, 2.4), ylim=(-1.6, 1.6), xticks=[], yticks=[], aspect="equal")
    panel.grid(False)


def _shares(panel: "Axes", every: "Sequence[Method]", shares: Sequence[Share]) -> None:
    names = {"ERM": "ERM", "SAM": "SAM", "SGLD": "SGLD, σ = β", "SAGE": "SAGE's noise, γ = β / 2"}
    for at, (name, label) in enumerate(names.items()):
        own = [(2 * max(m.gamma, m.sigma / 2), s) for m, s in zip(every, shares, strict=True) if m.name == name]
        x = [noise + 0.02 * at for noise, _ in own]
        y = [100 * s.ends for _, s in own]
        error = [[100 * (s.ends - s.low) for _, s in own], [100 * (s.high - s.ends) for _, s in own]]
        how: Any = {"color": LOOKS[name].colour, "marker": LOOKS[name].marker, "ms": 3, "lw": 1, "elinewidth": 0.7}
        panel.errorbar(x, y, error, label=label, **how)
        if name in ("SGLD", "SAGE"):
            stays = [100 * s.stays for m, s in zip(every, shares, strict=True) if m.name == name]
            panel.plot(x, stays, color=LOOKS[name].colour, lw=0.8, ls=":")
    panel.set_xlabel("noise β in A's basin", fontsize=6)
    panel.set_ylabel("runs that end nearer to B (%)\n(dotted: within 0.3 of B)", fontsize=SMALL + 0.3)
    panel.set_ylim(-4, 104)
    panel.legend(frameon=False, fontsize=SMALL, loc="upper left")
