"""The picture of Theorem 1: excess risk over its leading term against the number of distributions."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.results import looks, picture
from domainbed_sage.results.picture import FAINT, Block

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from domainbed_sage.paper.theorem1 import Estimate

NAME = "theorem1_ratio"
HEIGHT = 2.6  # inches
BELOW = (
    "95% intervals of Monte Carlo, mostly smaller than the markers; Appendix C's domains by exact enumeration.\n"
    "Shaded: K = 2 to 5, as in the paper's experiments."
)


def draw(found: Mapping[str, Sequence["Estimate"]]) -> "list[Figure]":
    """One panel, a line for each kind of losses."""
    from matplotlib.lines import Line2D

    own = looks.looks(found)
    lines = [
        Line2D([], [], lw=1.1, ms=3.5, color=look.colour, marker=marker, label=kind)
        for (kind, look), marker in zip(own.items(), "osD^", strict=True)
    ]
    block = Block(HEIGHT, partial(_panel, found, {line.get_label(): line for line in lines}))
    return picture.pages([block], "Theorem 1: excess risk over its alignment term", BELOW, lines)


def _panel(found: Mapping[str, Sequence["Estimate"]], lines: Mapping[object, object], part: "SubFigure") -> None:
    from matplotlib.lines import Line2D

    panel = part.subplots()
    panel.axvspan(2 / 1.1, 5 * 1.1, color="#f3f5f7", lw=0, zorder=0)
    panel.axhline(1, color=FAINT, lw=0.8, zorder=1)
    for kind, estimates in found.items():
        like = lines[kind]
        assert isinstance(like, Line2D)
        ks, ratios = [one.K for one in estimates], [one.ratio for one in estimates]
        half = [one.half_width for one in estimates]
        panel.errorbar(
            ks,
            ratios,
            half,
            color=like.get_color(),
            marker=like.get_marker(),
            ms=3.5,
            lw=1.1,
            elinewidth=0.9,
            capsize=2,
        )
    panel.set_xscale("log", base=2)
    ticks = [2**power for power in range(9)]
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.set_xlabel("K, number of distributions", fontsize=6.5)
    panel.set_ylabel("excess / (tr(H̄⁻¹Σ_g) / 2K)", fontsize=6.5)


def write(found: Mapping[str, Sequence["Estimate"]], folder: Path) -> list[Path]:
    """The picture as PNG and SVG."""
    return picture.write_all(draw(found), folder, NAME, ("png", "svg"))
