"""`domainbed-sage paper cost`: FLOPs and time of a step beside Appendix G, which calls SAGE's cost that of SAM.

Verdicts are of FLOPs, which repeat exactly. Times are of small networks, in a file of their own, `cost_times.json`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from domainbed_sage.core import strict_json
from domainbed_sage.core.files import write_atomically
from domainbed_sage.paper import flops, steps, times
from domainbed_sage.paper.drawing import LOOKS, SMALL, drawn
from domainbed_sage.paper.findings import Finding, Verdict, command, publish
from domainbed_sage.paper.flops import Cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What a step of SAGE costs"
DOMAINS, FEW_DOMAINS = (2, 3, 4, 5, 6), (2, 3)  # K; source domains, or tasks
USUAL = 3  # K of most of the paper's experiments
ABOUT, NEGLIGIBLE = 0.1, 0.05  # of a ratio of 2; of a step
TOTAL_ROWS = 12  # the paper's batch size, read as that of the whole batch

Costs: TypeAlias = Mapping[str, Mapping[int, Cost]]  # by network and K


def run(output_dir: Path, *, seed: int = 0, quick: bool = False, as_json: bool = False) -> int:
    """Count and time the steps, write findings, picture and times into a folder, and print the findings.

    Raises:
        UserError: the folder cannot be written.
    """
    from domainbed_sage.results.picture import write_all

    counted = {
        name: {K: flops.count(size, K) for K in (FEW_DOMAINS if quick else DOMAINS)}
        for name, size in steps.FULL.items()
    }
    pictures = write_all([drawn(1.9, lambda figure: _draw(figure, counted))], output_dir, "cost")
    found = [finding for name, costs in counted.items() for finding in findings(name, costs)]
    timed = times.measured(seed, rounds=times.FEW if quick else times.ROUNDS)
    write_atomically(output_dir / "cost_times.json", strict_json.dumps(timed, indent=1) + "\n")
    how = command("cost", seed, quick)
    publish(found, TITLE, "cost", output_dir, command=how, seed=seed, as_json=as_json, pictures=pictures)
    return 0


def findings(name: str, costs: Mapping[int, Cost]) -> list[Finding]:
    """What Appendix G says, for one network."""
    size = steps.FULL[name]
    how = (
        f"{size.words}; FLOPs of matrix products, convolutions and attention of a real `update` on tensors without "
        f"values, K = {', '.join(map(str, costs))}. «As written»: one forward call, K calls of autograd, five quintic "
        "iterations written out. «Here»: the suite's step."
    )
    return [_of_ratio(name, costs, how), _of_iterations(name, costs[USUAL], how), _of_cosines(name, costs, how)]


def _of_ratio(name: str, costs: Mapping[int, Cost], how: str) -> Finding:
    def listed(method: str) -> str:
        return ", ".join(f"{cost.ratio(method):.2f}" for cost in costs.values())

    def near(method: str) -> bool:
        return all(abs(cost.ratio(method) / 2 - 1) < ABOUT for cost in costs.values())

    verdict: Verdict = "holds" if near("SAGE as written") else "holds in part" if _any_near(costs) else "does not hold"
    return Finding(
        f"Appendix G, total cost, {name}",
        "a step of SAGE costs about twice one of ERM, as SAM's does",
        f"FLOPs over ERM's at K = {', '.join(map(str, costs))}: SAM {listed('SAM')}; SAGE as written "
        f"{listed('SAGE as written')}; SAGE here {listed('SAGE here')}.",
        verdict,
        f"{how} «About» is within {ABOUT:.0%}; in part, if it is so here or for some K.",
        {f"{method}, K={K}": cost.ratio(method) for K, cost in costs.items() for method in cost.steps},
    )


def _any_near(costs: Mapping[int, Cost]) -> bool:
    ratios = [cost.ratio(method) for cost in costs.values() for method in ("SAGE as written", "SAGE here")]
    return any(abs(ratio / 2 - 1) < ABOUT for ratio in ratios)


def _of_iterations(name: str, cost: Cost, how: str) -> Finding:
    size = steps.FULL[name]
    passes = cost.steps["SAGE here"] - cost.ascent
    shares = {"written out": cost.quintic / (passes + cost.quintic), "here": cost.ascent / cost.steps["SAGE here"]}
    text = (
        f"At K = {USUAL} the five quintic iterations are {cost.quintic / 1e9:.0f} GFLOP written out, "
        f"{shares['written out']:.0%} of a step, and {cost.ascent / 1e9:.0f} here, {shares['here']:.0%}; Eq. 7's are "
        f"{cost.eq7 / 1e9:.0f}, "
        f"{cost.eq7 / cost.steps['ERM']:.0%} of one forward and backward pass."
    )
    if size.backbone:
        whole = passes * TOTAL_ROWS / (size.rows * USUAL)
        shares["written out, 12 images"] = cost.quintic / (whole + cost.quintic)
        text += (
            f" With {TOTAL_ROWS} images in all instead of {size.rows * USUAL}: {shares['written out, 12 images']:.0%}."
        )
    most = shares["written out"]
    return Finding(
        f"Appendix G, Newton-Schulz, {name}",
        "an iteration is a single matrix product and a subtraction, and the overhead is negligible",
        f"{text} An iteration of Eq. 7 takes two products of matrices, the quintic three.",
        "holds in part" if most < NEGLIGIBLE else "does not hold",
        f"{how} Negligible: below {NEGLIGIBLE:.0%} of a step.",
        {"eq7": cost.eq7, "quintic": cost.quintic, "ascent_here": cost.ascent, "erm_step": cost.steps["ERM"], **shares},
    )


def _of_cosines(name: str, costs: Mapping[int, Cost], how: str) -> Finding:
    K, cost = max(costs.items())
    share = cost.gram / cost.steps["ERM"]
    return Finding(
        f"Appendix G, cosines, {name}",
        "the pairwise cosines, O(K² d), are negligible",
        f"At K = {K} the inner products are {cost.gram / 1e9:.1f} GFLOP, {100 * share:.2g} % of one of ERM's steps. "
        f"They need the {K} gradients side by side: {4 * K * cost.parameters / 2**30:.2f} GiB in float32.",
        "holds" if share < NEGLIGIBLE else "does not hold",
        f"{how} Inner products by 2 d FLOPs for each of K (K + 1) / 2 pairs.",
        {"gram": cost.gram, "share": share},
    )


def _draw(figure: "Figure", counted: Costs) -> None:
    panels = figure.subplots(1, len(counted), sharey=True, squeeze=False)[0]
    colours = {"SAM": ("SAM", "-"), "SAGE as written": ("SAGE", "--"), "SAGE here": ("SAGE", "-")}
    for panel, (name, costs) in zip(panels, counted.items(), strict=True):
        for method, (look, dash) in colours.items():
            how: Any = {"color": LOOKS[look].colour, "ls": dash, "lw": 1.0, "marker": LOOKS[look].marker, "ms": 2.2}
            panel.plot(list(costs), [cost.ratio(method) for cost in costs.values()], label=method, **how)
        panel.set_title(name, fontsize=6.5, pad=3)
        panel.set_xlabel("K", fontsize=6)
        panel.set_ylim(bottom=1)
    panels[0].set_ylabel("FLOPs of a step / ERM's", fontsize=6)
    panels[-1].legend(frameon=False, fontsize=SMALL, loc="upper center")
