"""Figure 3: SAGE over ρ and γ, and without each of its components, from the records of two sweeps on EmojiStyles."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from domainbed_sage.core import strict_json
from domainbed_sage.paper import records
from domainbed_sage.paper.drawing import LOOKS, SMALL, Part, drawn
from domainbed_sage.paper.findings import Finding, Verdict
from domainbed_sage.results.picture import beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from domainbed_sage.results.tables import Table

GRID, COMPONENTS = "fig3_grid", "fig3_components"
WITHOUT = {  # row of the sweep, and the component that it lacks
    "no polar factor": "orthogonalization via Newton-Schulz",
    "no weight scaling": "weight scaling in each layer",
    "no noise": "the additive noise",
}
WHERE = "EmojiStyles and a small network, not OfficeHome and CLIP (sweeps/fig3_officehome.yaml, which was not run)"


class Cell(NamedTuple):
    """A setting of SAGE, and its held-out accuracy in points, the mean over environments and trials."""

    rho: float
    gamma: float
    accuracy: float


class Gain(NamedTuple):
    """A difference in points, and its 95 % interval."""

    points: float
    low: float
    high: float


def complete(name: str) -> "Table | None":
    """The table of a sweep's records, by training-domain validation; None, and a message, unless all runs are there."""
    from domainbed_sage.results import api

    folder = records.folder(name)
    table = api.table(folder) if folder else None
    if table is not None and table.missing:
        records.say(name, f"{len(table.missing)} results in {folder} are missing")
        return None
    return table


def cells(table: "Table") -> list[Cell]:
    """The settings of a grid, by ρ, then γ."""
    hparams = {run.label: strict_json.loads(run.hparams) for run in table.records}
    means = averages(table)
    settings = [(float(own["rho"]), float(own["gamma"]), means[label]) for label, own in hparams.items()]
    return [Cell(*setting) for setting in sorted(settings)]


def averages(table: "Table") -> dict[str, float]:
    """Held-out accuracy of each row in points: the mean over environments and trials."""
    means = table.results.groupby("algorithm", sort=False, observed=True)["test_acc"].mean()
    return {str(label): 100 * float(mean) for label, mean in means.items()}


def check_grid(seed: int, quick: bool) -> Part:
    """Figure 3, left; nothing without its records."""
    del seed, quick
    if (table := complete(GRID)) is None:
        return Part([])
    grid = cells(table)
    return Part([_of_grid(grid, chance_error(table))], drawn(2.0, lambda figure: _draw_grid(figure, grid)))


def chance_error(table: "Table") -> float:
    """Standard error of a cell in points by the choice of test images alone: binomial, over the held-out in splits."""
    from domainbed_sage.data.specs import datasets
    from domainbed_sage.data.splits import split

    counts = datasets[table.records[0].dataset].counts
    means = table.results.groupby("env", observed=True)["test_acc"].mean()
    sizes = [len(split(counts[int(env)], int(env), 0).in_) for env in means.index]
    return 100 * math.sqrt(sum(p * (1 - p) / n for p, n in zip(means, sizes, strict=True))) / len(sizes)


def _of_grid(grid: list[Cell], error: float) -> Finding:
    rhos, gammas = ({getattr(cell, axis) for cell in grid} for axis in ("rho", "gamma"))
    ends = {min(rhos), max(rhos)}, {min(gammas), max(gammas)}
    inner = [cell.accuracy for cell in grid if cell.rho not in ends[0] and cell.gamma not in ends[1]]
    outer = [cell.accuracy for cell in grid if cell.rho in ends[0] or cell.gamma in ends[1]]
    best, worst = max(grid, key=lambda cell: cell.accuracy), min(grid, key=lambda cell: cell.accuracy)
    stable = max(inner) - min(inner) < 4 * error
    falls = min(outer) < min(inner) - 2 * error
    verdict: Verdict = "holds" if stable and falls else "holds in part" if stable or falls else "does not hold"
    return Finding(
        "Figure 3, left",
        "performance is stable over ρ and γ, but for relatively low or high values",
        f"The inner settings lie between {min(inner):.1f} and {max(inner):.1f} %, those at the ends of a range between "
        f"{min(outer):.1f} and {max(outer):.1f} %. Best is {_words(best)}, worst {_words(worst)}. The choice of test "
        f"images alone moves a cell by ± {error:.1f} (standard error).",
        verdict,
        f"On {WHERE}. {len(grid)} settings, one trial on each of two held-out styles. It holds if the inner settings "
        "differ by less than four standard errors, and one at an end is two below the lowest of them; in part, if "
        "one of both is so.",
        {f"accuracy_rho_{c.rho:g}_gamma_{c.gamma:g}": c.accuracy for c in grid} | {"standard_error": error},
    )


def _words(cell: Cell) -> str:
    return f"ρ = {cell.rho:g}, γ = {cell.gamma:g} ({cell.accuracy:.1f} %)"


def check_components(seed: int, quick: bool) -> Part:
    """Figure 3, right; nothing without its records."""
    del seed, quick
    if (table := complete(COMPONENTS)) is None:
        return Part([])
    means, gains = averages(table), gains_of_sage(table)
    claims = {row: f"{part} contributes positively" for row, part in WITHOUT.items()}
    claims |= {"Muon": "SAGE is better than the Muon optimizer", "ERM": "SAGE is better than ERM"}
    numbers = {f"accuracy_{label}": mean for label, mean in means.items()}
    found = [_of_component(row, claim, means, gains[row]) for row, claim in claims.items()]
    found[0] = replace(found[0], numbers=numbers | dict(found[0].numbers))
    return Part(found, drawn(1.75, lambda figure: _draw_components(figure, means, gains)))


def gains_of_sage(table: "Table") -> dict[str, Gain]:
    """SAGE minus every other row, in points, with an interval for other seeds and splits on these environments.

    Differences are taken in pairs of equal environment and trial; each environment is a group of its trials.
    """
    from domainbed_sage.results.intervals import error_of_these, t_test

    accuracy = table.results.pivot(index="algorithm", columns=["env", "trial_seed"], values="test_acc") * 100
    environments = accuracy.columns.get_level_values("env").nunique()
    found = {}
    for label in accuracy.index.drop("SAGE"):
        difference = (accuracy.loc["SAGE"] - accuracy.loc[label]).to_numpy().reshape(environments, -1)
        test = t_test(float(difference.mean()), error_of_these(difference))
        found[str(label)] = Gain(float(difference.mean()), test.low, test.high)
    return found


def _of_component(row: str, claim: str, means: Mapping[str, float], gain: Gain) -> Finding:
    is_separable = gain.low > 0 or gain.high < 0
    return Finding(
        f"Figure 3, right, {row}",
        claim,
        f"SAGE {means['SAGE']:.1f} %, {row} {means[row]:.1f} %. SAGE minus this: {gain.points:+.1f} points, 95 % "
        f"interval {gain.low:+.1f} to {gain.high:+.1f}{'' if is_separable else ', not separable from none'}.",
        "holds" if gain.low > 0 else "does not hold" if gain.points <= 0 else "holds in part",
        f"On {WHERE}. Two trials on each held-out style, in pairs; interval for other seeds and splits (Student's t). "
        "It holds where the interval is above 0, in part where the difference alone is.",
        gain._asdict(),
    )


def _draw_grid(figure: "Figure", grid: list[Cell]) -> None:
    import numpy as np

    rhos, gammas = (sorted({getattr(cell, axis) for cell in grid}) for axis in ("rho", "gamma"))
    values = np.full((len(rhos), len(gammas)), np.nan)
    for cell in grid:
        values[rhos.index(cell.rho), gammas.index(cell.gamma)] = cell.accuracy
    panel = figure.subplots()
    image = panel.imshow(values, cmap="Blues", origin="lower", aspect="auto", vmin=values.min() - 3)
    middle = (values.min() - 3 + values.max()) / 2
    for (i, j), value in np.ndenumerate(values):
        panel.text(
            j, i, f"{value:.1f}", ha="center", va="center", fontsize=6.5, color="w" if value > middle else "#333333"
        )
    panel.set_xticks(range(len(gammas)), [f"{g:g}" for g in gammas])
    panel.set_yticks(range(len(rhos)), [f"{r:g}" for r in rhos])
    panel.set_xlabel("noise scale γ", fontsize=6)
    panel.set_ylabel("radius ρ", fontsize=6)
    panel.set_title("held-out accuracy (%)", fontsize=6.5, pad=3)
    panel.grid(False)
    figure.colorbar(image, ax=panel, pad=0.02).outline.set_visible(False)


def _draw_components(figure: "Figure", means: Mapping[str, float], gains: Mapping[str, Gain]) -> None:
    panel = figure.subplots()
    labels, longest = list(means)[::-1], 0.0
    for at, label in enumerate(labels):
        how: Any = {"color": LOOKS.get(label, LOOKS["SAGE"]).colour, "alpha": 1.0 if label in LOOKS else 0.55}
        panel.barh(at, means[label], height=0.65, **how)
        end = means[label]
        if label in gains:
            ends = (means["SAGE"] - gains[label].high, means["SAGE"] - gains[label].low)
            panel.plot(ends, [at, at], color="w", lw=2.0)
            panel.plot(ends, [at, at], color="#333333", lw=0.8)
            end = max(ends[1], end)
        beside(panel, f"{means[label]:.1f}", (end, at), (3, 0), va="center", fontsize=SMALL)
        longest = max(longest, end)
    panel.axvline(means["SAGE"], color=LOOKS["SAGE"].colour, lw=0.6, ls=":")
    panel.set_yticks(range(len(labels)), labels)
    panel.set_xlabel("held-out accuracy (%); lines: the difference to SAGE, 95 %", fontsize=SMALL)
    panel.set_xlim(0, 1.12 * longest)
    panel.grid(visible=False, axis="y")
