"""Figure 5: the gradient of the unseen domain beside that of the sources, from records with `--log_alignment`."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from domainbed_sage.core.files import regular
from domainbed_sage.paper import records
from domainbed_sage.paper.drawing import LOOKS, SMALL, Part, drawn
from domainbed_sage.paper.findings import Finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from domainbed_sage.results.records import FloatArray

SWEEP, FLAG = "fig5", "--log_alignment"
METHODS = ("ERM", "SAGE")


class Curve(NamedTuple):
    """The cosine along one run: training steps [T] and means over the steps since the one before [T]."""

    held_out: str
    trial: int
    steps: "FloatArray"
    cosine: "FloatArray"

    def late(self) -> float:
        """The mean over the second half of the training."""
        return float(self.cosine[self.steps > self.steps[-1] / 2].mean())


def curves(folder: Path) -> dict[str, list[Curve]]:
    """The curves of every method, by held-out environment and trial; runs without the cosine have none."""
    import numpy as np

    from domainbed_sage.results.records import RESULTS, read_run
    from domainbed_sage.training.alignment import NAME

    found = defaultdict(list)
    with _runs(folder) as runs:
        for run in runs:
            lines = read_run(run / RESULTS)
            if any(line.get(NAME) is None for line in lines):
                continue
            args = lines[0]["args"]
            held_out = "+".join(lines[0]["environments"][i] for i in args["test_envs"])
            steps, cosine = (np.array([line[key] for line in lines], float) for key in ("step", NAME))
            found[args["algorithm"]].append(Curve(held_out, args["trial_seed"], steps, cosine))
    return {method: sorted(own, key=lambda c: (c.held_out, c.trial)) for method, own in found.items()}


@contextmanager
def _runs(folder: Path) -> Iterator[list[Path]]:
    """The finished run directories of a folder, or of its `runs.zip`."""
    from domainbed_sage.results import packed

    def finished(parent: Path) -> list[Path]:
        return sorted(run for run in parent.iterdir() if regular(run / packed.DONE))

    if here := finished(folder):
        yield here
    elif regular(folder / packed.FILE):
        with packed.unpacked(folder) as whole:
            yield finished(whole)
    else:
        yield []


def check(seed: int, quick: bool) -> Part:
    """Findings and the picture; nothing without its records."""
    del seed, quick
    folder = records.folder(SWEEP, FLAG)
    found = curves(folder) if folder else {}
    pairs = [{(c.held_out, c.trial) for c in found.get(method, [])} for method in METHODS]
    if not pairs[0] or pairs[0] != pairs[1]:
        if folder:
            records.say(
                SWEEP, f"the runs of {' and '.join(METHODS)} in {folder} are not the same, or have no cosine", FLAG
            )
        return Part([])
    return Part(findings(found), drawn(2.6, lambda figure: _draw(figure, found)))


def findings(found: dict[str, list[Curve]]) -> list[Finding]:
    """What the curves say; the paper prints no number, and says of the figure only what it shows."""
    import numpy as np

    from domainbed_sage.results.intervals import error_of_like_these, t_test

    late = {method: np.array([curve.late() for curve in found[method]]) for method in METHODS}
    first = float(np.mean([curve.cosine[0] for method in METHODS for curve in found[method]]))
    difference = late["SAGE"] - late["ERM"]
    test = t_test(float(difference.mean()), error_of_like_these(difference))
    how = (
        f"EmojiStyles and a small network: {len(difference)} pairs of runs of equal held-out style and trial, "
        f"{int(found['ERM'][0].steps[-1]) + 1} steps each; the mean over the second half. Gradients of the step's "
        "minibatch and of as many held-out images, before every step."
    )
    means = {method: float(own.mean()) for method, own in late.items()}
    numbers = means | {"at_start": first, "difference": float(difference.mean()), "low": test.low, "high": test.high}
    return [
        Finding(
            "Figure 5, sign",
            "the gradient of the unseen domain aligns with the mean gradient of the sources",
            f"The cosine begins at {first:.2f} and is {means['ERM']:.3f} with ERM and {means['SAGE']:.3f} with SAGE in "
            f"the second half; it is positive in {sum(int((own > 0).sum()) for own in late.values())} of "
            f"{2 * len(difference)} runs.",
            "holds" if all((own > 0).all() for own in late.values()) else "holds in part",
            how,
            numbers,
        ),
        Finding(
            "Figure 5, SAGE and ERM",
            "SAGE's training aligns it more (the figure shows curves, the text states no number)",
            f"SAGE minus ERM: {difference.mean():+.3f}, 95 % interval {test.low:+.3f} to {test.high:+.3f} (t over "
            "pairs).",
            "holds" if test.low > 0 else "does not hold" if difference.mean() <= 0 else "holds in part",
            how,
        ),
    ]


def _draw(figure: "Figure", found: dict[str, list[Curve]]) -> None:
    import numpy as np

    names = sorted({curve.held_out for curve in found[METHODS[0]]})
    panels = figure.subplots(-(-len(names) // 2), min(2, len(names)), sharex=True, sharey=True, squeeze=False)
    for panel, name in zip(panels.flat, names, strict=False):
        for method in METHODS:
            own = [curve for curve in found[method] if curve.held_out == name]
            values = np.stack([curve.cosine for curve in own])
            how: Any = {"color": LOOKS[method].colour}
            panel.plot(own[0].steps, values.mean(0), lw=1.0, label=method, **how)
            panel.fill_between(own[0].steps, values.min(0), values.max(0), alpha=0.15, lw=0, **how)
        panel.axhline(0, color="#767676", lw=0.5)
        panel.set_title(f"held out: {name}", fontsize=6.5, pad=3)
    for panel in panels[-1]:
        panel.set_xlabel("step", fontsize=6)
    for panel in panels[:, 0]:
        panel.set_ylabel("cosine", fontsize=6)
    panels[0, 0].legend(frameon=False, fontsize=SMALL)
