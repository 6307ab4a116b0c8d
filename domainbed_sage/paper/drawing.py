"""What the pictures of this wing share: the width of a column, and the look of each method."""

from typing import TYPE_CHECKING, Any, NamedTuple

from domainbed_sage.results.looks import looks
from domainbed_sage.results.picture import settle, style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from domainbed_sage.paper.findings import Finding

COLUMN = 3.3  # inches, of a page with two columns
SMALL = 5.5  # points
LOOKS = looks(("ERM", "SAM", "SAGE", "SGLD", "ASAM", "Muon"))


class Part(NamedTuple):
    """A figure computed anew: its findings, and the picture, if there is one."""

    findings: "Sequence[Finding]"
    figure: "Figure | None" = None


def drawn(height: float, draw: "Callable[[Figure], Any]", width: float = COLUMN) -> "Figure":
    """A picture of this height and width in inches, laid out the same each time."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with style():
        layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03)
        figure = Figure(figsize=(width, height), layout=layout)
        draw(figure)
        settle(figure)
    return figure
