"""Figure 3: SAGE over ρ and γ, and without each of its components, from the records of two sweeps on EmojiStyles."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from domainbed_sage.paper import records
from domainbed_sage.paper.drawing import LOOKS, SMALL, Part, drawn
from domainbed_sage.paper.findings import Finding, Verdict

if TYPE_CHECKING:
    import pandas as pd
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
    hparams = {run.label: run.hparams for run in table.records}
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

    sizes = [len(split(n, i, 0).in_) for i, n in enumerate(datasets[table.records[0].dataset].counts)]
    means = table.results.groupby("env", observed=True)["test_acc"].mean()
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
        f"On {WHERE}. {len(grid)} settings, one trial on each held-out style. It holds if the inner settings differ by "
        "less than four standard errors, and one at an end is two below the lowest of them; in part, if one of both is "
        "so.",
        {f"accuracy_rho_{c.rho:g}_gamma_{c.gamma:g}": c.accuracy for c in grid} | {"standard_error": error},
    )


def _words(cell: Cell) -> str:
    return f"ρ = {cell.rho:g}, γ = {cell.gamma:g} ({cell.accuracy:.1f} %)"


def check_components(seed: int, quick: bool) -> Part:
    """Figure 3, right; nothing without its records."""
    del seed, quick
    if (table := complete(COMPONENTS)) is None:
        return Part([])
    from domainbed_sage.results.compare import compare

    means = averages(table)
    differences = compare(table, "SAGE", [label for label in means if label != "SAGE"]).frame
    found = [_of_component(row, part, differences) for row, part in WITHOUT.items()]
    return Part(
        [*found, _of_muon(differences, means)], drawn(1.75, lambda figure: _draw_components(figure, means, differences))
    )


def _of_component(row: str, part: str, differences: "pd.DataFrame") -> Finding:
    gain, low, high = _gain(differences, row)
    verdict: Verdict = "holds" if low > 0 else "does not hold" if gain <= 0 else "holds in part"
    return Finding(
        f"Figure 3, right, {row}",
        f"{part} contributes positively",
        f"With it SAGE is {gain:+.1f} points better, 95 % interval {low:+.1f} to {high:+.1f}: "
        f"{'separable from' if low > 0 or high < 0 else 'not separable from'} no difference.",
        verdict,
        _how(differences),
        {"gain": gain, "low": low, "high": high},
    )


def _of_muon(differences: "pd.DataFrame", means: dict[str, float]) -> Finding:
    gain, low, high = _gain(differences, "Muon")
    return Finding(
        "Figure 3, right, Muon",
        "SAGE is better than the Muon optimizer",
        f"SAGE {means['SAGE']:.1f} %, Muon {means['Muon']:.1f} %, ERM {means['ERM']:.1f} %: SAGE is {gain:+.1f} points "
        f"better than Muon, 95 % interval {low:+.1f} to {high:+.1f}.",
        "holds" if low > 0 else "does not hold" if gain <= 0 else "holds in part",
        _how(differences),
        {"gain": gain, "low": low, "high": high} | {f"accuracy_{label}": mean for label, mean in means.items()},
    )


def _gain(differences: "pd.DataFrame", row: str) -> tuple[float, float, float]:
    """SAGE minus the row, in points, with the interval for other seeds and splits."""
    found = differences.loc[row]
    return -float(found["difference"]), -float(found["these_high"]), -float(found["these_low"])


def _how(differences: "pd.DataFrame") -> str:
    trials = int(differences["trials"].max())
    return (
        f"On {WHERE}. {trials} trials on each held-out style, pairs of equal style and trial, `domainbed-sage "
        "compare`: an interval for other seeds and splits. It holds where the interval is above 0, in part where the "
        "difference alone is."
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
    figure.colorbar(image, ax=panel, pad=0.02).outline.set_visible(False)  # type: ignore[operator]


def _draw_components(figure: "Figure", means: dict[str, float], differences: "pd.DataFrame") -> None:
    panel = figure.subplots()
    labels = list(means)[::-1]
    for at, label in enumerate(labels):
        look = LOOKS.get(label, LOOKS["SAGE"])
        how: Any = {"color": look.colour, "alpha": 1.0 if label in LOOKS else 0.55, "height": 0.65}
        panel.barh(at, means[label], **how)
        end = means[label]
        if label != "SAGE":
            _, low, high = _gain(differences, label)
            ends = (means["SAGE"] - high, means["SAGE"] - low)
            panel.plot(ends, [at, at], color="#333333", lw=0.8)
            end = max(ends[1], end)
        panel.text(end + 0.6, at, f"{means[label]:.1f}", va="center", fontsize=SMALL)
    panel.axvline(means["SAGE"], color=LOOKS["SAGE"].colour, lw=0.6, ls=":")
    panel.set_yticks(range(len(labels)), labels)
    panel.set_xlabel("held-out accuracy (%); line: 95 % interval of the difference to SAGE", fontsize=SMALL)
    panel.set_xlim(left=0)
    panel.grid(visible=False, axis="y")
