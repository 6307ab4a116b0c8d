"""What all pictures share: their style, pages no larger than a sheet of paper, and writing them."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed_sage.core.files import write_atomically
from domainbed_sage.results.escape import printable

if TYPE_CHECKING:  # imported where a picture is drawn: that takes as long as everything else that a table needs
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

FORMATS = ("png", "pdf", "svg")
WIDTH, HEIGHT = 7.0, 9.4  # inches, the text of a page
LONGEST = 32  # characters of a name
PLACES = 5  # digits of a place in a figure, as a share of its size
MISSING = "Glyph .* missing from font"  # begins what matplotlib says of a character that no font has
FAINT, INK, PALE = "#767676", "#333333", "#c4c4c4"
_ASIAN = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC")
_STYLE: Any = {
    "text.parse_math": False,  # a $ in a name is printed as a $
    "text.usetex": False,
    "font.size": 7.0,
    "axes.edgecolor": "#bbbbbb",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 6.0,
    "ytick.labelsize": 6.0,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "figure.dpi": 200,  # of the files, too: letters have other widths in others
    "savefig.dpi": "figure",
    "pdf.fonttype": 42,  # whole fonts, which publishers ask for
    "svg.hashsalt": "domainbed-sage",  # the same names in the file each time
}
_UNDATED: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """A part of a page that is not divided: its height in inches, and what draws it."""

    height: float
    draw: Callable[["SubFigure"], None]


def style() -> Any:
    """The context in which pictures are drawn and written, with a font for Asian names where this machine has one."""
    import matplotlib
    from matplotlib import font_manager

    fonts = font_manager.get_font_names()
    return matplotlib.rc_context(
        {**_STYLE, "font.family": ["DejaVu Sans", *(name for name in _ASIAN if name in fonts)]}
    )


def pages(blocks: Sequence[Block], title: str, below: str = "", legend: Sequence[Any] = ()) -> "list[Figure]":
    """Blocks one below the other on as few pages as hold them in their order, each with the title and the legend.

    A page is `WIDTH` wide and at most `HEIGHT` high, unless a single block is higher.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = _legend_columns([handle.get_label() for handle in legend])
    head = 0.5 + 0.15 * -(-len(legend) // columns) + 0.12 * below.count("\n")
    in_rows = [handle for column in range(columns) for handle in legend[column::columns]]
    figures = []
    with style():
        for sheet in packed([block.height for block in blocks], HEIGHT - head):
            heights = [blocks[at].height for at in sheet]
            layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03)
            figure = Figure(figsize=(WIDTH, head + sum(heights)), layout=layout)
            parts = figure.subfigures(len(sheet), 1, squeeze=False, height_ratios=heights)[:, 0]
            for at, part in zip(sheet, parts, strict=True):
                blocks[at].draw(part)
            if below:
                figure.supxlabel(below, fontsize=6.5, color=FAINT)
            if legend:
                how = {"ncols": columns, "frameon": False, "fontsize": 6.5, "title_fontsize": 8}
                figure.legend(handles=in_rows, loc="outside upper center", title=title, **how)
            else:
                figure.suptitle(title, fontsize=8)
            settle(figure)
            figures.append(figure)
    return figures


def settle(figure: "Figure") -> None:
    """Lay the figure out once for all formats, at places that are the same each time.

    What solves for the layout is not exact, and its last digits are others each time; they are rounded away.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", MISSING)  # said when the figure is written
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for panel in figure.axes:
        x, y, width, height = (round(side, PLACES) for side in panel.get_position().bounds)
        panel.set_position((x, y, width, height))
    for text in (text for sheet in (figure, *figure.subfigs) for text in sheet.texts):
        x, y = text.get_position()
        text.set_position((round(x, PLACES), round(y, PLACES)))


def _legend_columns(names: Sequence[str]) -> int:
    """How many entries of a legend go side by side, at about 0.055 inches a character."""
    return max(1, min(len(names), int(WIDTH / (0.45 + 0.055 * max(map(len, names), default=0)))))


def packed(heights: Sequence[float], room: float) -> list[list[int]]:
    """Indices of what goes on each page: in order, a new page where the next one would not fit."""
    sheets: list[list[int]] = []
    for at, height in enumerate(heights):
        if sheets and sum(heights[other] for other in sheets[-1]) + height <= room + 1e-9:
            sheets[-1].append(at)
        else:
            sheets.append([at])
    return sheets


def strips(columns: int, most: int) -> Iterator[range]:
    """The columns of a block, divided evenly into as few rows of panels as have at most `most` each."""
    rows = -(-columns // most)
    for row in range(rows):
        yield range(row * columns // rows, (row + 1) * columns // rows)


def shortened(name: str) -> str:
    """A name as plain text, short enough to leave room for the picture."""
    text = printable(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[1 - LONGEST // 2 :]}"


def beside(panel: "Axes", text: str, at: tuple[float, float], shift: tuple[float, float], **how: Any) -> None:
    """Write `text` at a place, moved by `shift` points."""
    panel.annotate(text, at, shift, textcoords="offset points", **how).set_in_layout(False)


def write_all(figures: "Sequence[Figure]", folder: Path, stem: str, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write pages into `folder` as `stem`.png, `stem`-2.png, … in each format; each complete or not at all."""
    names = [stem, *(f"{stem}-{page}" for page in range(2, len(figures) + 1))]
    return [
        write_atomically(folder / f"{name}.{kind}", written(figure, kind))
        for name, figure in zip(names, figures, strict=True)
        for kind in FORMATS
        if kind in formats
    ]


def written(figure: "Figure", kind: str = "png") -> bytes:
    """A figure in one of `FORMATS`, with the same bytes each time."""
    buffer = io.BytesIO()
    with style(), warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("always", MISSING)
        figure.savefig(buffer, format=kind, metadata=_UNDATED[kind])
    glyphs = [warning for warning in said if "Glyph" in str(warning.message)]
    for other in (warning for warning in said if warning not in glyphs):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if glyphs:
        log.warning("The fonts of this machine lack characters of some names. The pictures show boxes, the tables all.")
    return buffer.getvalue()
