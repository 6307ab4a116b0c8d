"""What suits a terminal: text as wide as it is, and log messages above progress bars."""

import logging
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

PIPED = 80  # columns of output that goes to no terminal


def width() -> int:
    """Columns of the terminal, or `PIPED`; the variable COLUMNS wins."""
    return shutil.get_terminal_size((PIPED, 24)).columns


def folded(text: str, indent: str = "", hang: int = 4) -> str:
    """A paragraph as wide as the terminal, its second line and those that follow indented further; no word is broken.

    Args:
        text: the paragraph.
        indent: before its first line.
        hang: how many columns further the other lines begin.
    """
    return textwrap.fill(
        text,
        width(),
        initial_indent=indent,
        subsequent_indent=indent + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, the first to the left and the others to the right.

    Rows can be shorter than others; one of a single cell is a heading, and no column is as wide as it.
    """
    columns = zip_longest(*(row for row in rows if len(row) > 1), fillvalue="")
    first, *others = (max(map(len, column)) for column in columns)
    lines = ([row[0].ljust(first), *map(str.rjust, row[1:], others)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in lines)


class Terminal(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr what is not marked ``in_files``, see `training.console`."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(lambda record: not getattr(record, "in_files", False))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message; a bar is redrawn below it."""
        if "tqdm" not in sys.modules:  # then there is no bar, and nothing to import
            super().emit(record)
            return
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)
