"""The log files of a run."""

import logging
import sys
from contextlib import suppress
from pathlib import Path

from domainbed_sage.core.files import explained


class LogFile(logging.FileHandler):
    """A log file that never ends its run: once it cannot be written, one line on the terminal says so.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        with explained(path):
            super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(message)s"))
        self._told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say once that the file cannot be written."""
        del record
        if not self._told:
            self._told = True
            print(f"{self.baseFilename} cannot be written ({sys.exc_info()[1]}). The run goes on.", file=sys.stderr)

    def close(self) -> None:
        """Close the file; what it still held may be lost."""
        with suppress(OSError):
            super().close()
