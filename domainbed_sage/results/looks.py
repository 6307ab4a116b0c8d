"""How each method looks: the same colour, stroke and marker in every picture and page of a results folder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from domainbed_sage.results.expected import Key
from domainbed_sage.results.loaded import Loaded
from domainbed_sage.results.records import RunRecord


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Attributes:
        colour: on a white page.
        on_dark: on a dark page, as ``#14171a``; of the same hue.
        dash: lengths of strokes and gaps, in line widths, for pictures whose strokes mean nothing else; () is solid.
        marker: its name in Matplotlib.
    """

    colour: str
    on_dark: str
    dash: tuple[float, ...]
    marker: str


_COLOURS = (  # on white, on dark; the usual baseline comes first and is grey
    ("#424242", "#949494"),
    ("#6160f2", "#6f74fc"),
    ("#851306", "#f43f29"),
    ("#4b9646", "#c7f7c3"),
    ("#c353b3", "#cb3eb9"),
    ("#815f0f", "#fabf41"),
    ("#037375", "#77d4d6"),
    ("#840eaa", "#c68ee0"),
)  # found by maximizing the smallest distance in OKLab, as seen with normal vision and with each colour blindness
_STROKES: tuple[tuple[tuple[float, ...], str], ...] = (
    ((), "o"),
    ((5, 2), "s"),
    ((1.5, 1.5), "^"),
    ((6, 1.5, 1.5, 1.5), "D"),
)
DISTINCT = len(_COLOURS) * len(_STROKES)


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """The look of each label, by its place in the order: first all colours, then all of them with the next stroke.

    Give all rows of a results folder, see `order`, also where only some of them are drawn: a label then looks the same
    everywhere. After `DISTINCT` labels, looks repeat.
    """
    return {label: _look(at) for at, label in enumerate(dict.fromkeys(labels))}


def _look(at: int) -> Look:
    dash, marker = _STROKES[at // len(_COLOURS) % len(_STROKES)]
    return Look(*_COLOURS[at % len(_COLOURS)], dash, marker)


def order(plan: Sequence[Key], runs: Iterable[RunRecord]) -> list[str]:
    """The labels in the order of the table's rows: as planned, then those of further runs.

    Args:
        plan: the results to expect, `Loaded.planned` or `every_combination`.
        runs: the runs of the folder.
    """
    further = sorted((run.dataset, run.label) for run in runs)
    return list(dict.fromkeys([label for _, label, _, _ in plan] + [label for _, label in further]))


def of_folder(loaded: Loaded) -> dict[str, Look]:
    """The look of each row of a results folder."""
    return looks(order(loaded.expected(), loaded.records))
