"""What a section of a report is: data, or a sentence that says why it cannot be had."""

from collections.abc import Callable
from typing import Any

Data = dict[str, Any]


class Unavailable(Exception):  # noqa: N818 - reads as what it is
    """The section cannot be had; the message says why."""


def made(section: Callable[..., Data], *arguments: Any) -> Data:
    """The data of a section, with `unavailable`: why it cannot be had, empty if it can."""
    try:
        return {"unavailable": "", **section(*arguments)}
    except Unavailable as reason:
        return {"unavailable": str(reason)}
