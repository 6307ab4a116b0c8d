"""Tables as HTML for notebooks; every name in them is escaped."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from domainbed_sage.results.tables import Grid, Table


def cells(strings: pd.DataFrame, bold: pd.DataFrame | None = None) -> str:
    """A `table` element of strings, with the names of rows and columns as headings.

    Args:
        strings: the cells; rows and columns may have any names.
        bold: which of them to print bold, of the same shape; by default none.
    """
    texts = strings.map(escape)
    if bold is not None:
        texts = texts.where(~bold.to_numpy(bool), "<b>" + texts + "</b>")
    texts.index, texts.columns = (axis.map(lambda name: escape(str(name))) for axis in (texts.index, texts.columns))
    texts.insert(0, escape(str(strings.index.name)), texts.index, allow_duplicates=True)
    return texts.to_html(escape=False, index=False, border=0)


def sentences(lines: Sequence[str]) -> str:
    """Sentences as a list; empty when there are none."""
    return "<ul>\n" + "".join(f"<li>{escape(line)}</li>\n" for line in lines) + "</ul>\n" if lines else ""


def grid(shown: "Grid") -> str:
    """One table, the best of each column bold."""
    from domainbed_sage.results import render  # which imports `tables`, which imports this file

    return cells(shown.strings("±"), render.best(shown))


def table(shown: "Table") -> str:
    """All tables with their captions, then the footer."""
    from domainbed_sage.results import render

    grids = (*shown.grids, shown.averages)
    parts = [f"{grid(one)}\n<p>{escape(render.caption(shown, one))}</p>\n" for one in grids]
    return "\n".join([*parts, sentences(shown.footer)])
