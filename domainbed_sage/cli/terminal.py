"""Log messages on the terminal: above progress bars, and without what belongs into log files."""

import logging
import sys


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
