"""The exceptions whose messages are written for the user of the suite."""

from collections.abc import Sequence


class UserError(ValueError):
    """Something the user can mend: what is wrong, what was found, what is allowed, what to do.

    The command line prints the message without a stack trace and exits with status 2.

    Attributes:
        mistakes: what is wrong, one entry each, where the message lists several.
    """

    def __init__(self, message: str, mistakes: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(mistakes))
        self.message, self.mistakes = message, tuple(mistakes) or (message,)

    def __str__(self) -> str:
        return self.message


class NoSpace(UserError):  # noqa: N818 - reads as what it is
    """The disk is full, or too full to begin."""


class Stopped(Exception):  # noqa: N818 - an outcome, not an error
    """The run was asked to stop; its state is saved, and the same command continues it."""


def raise_all(mistakes: Sequence[str], where: str) -> None:
    """Raise one `UserError` that lists every mistake found in `where`; do nothing when there is none."""
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise UserError(f"{count} in {where}:\n" + bullets(mistakes), mistakes)


def bullets(lines: Sequence[str]) -> str:
    """The lines as an indented list."""
    return "\n".join(f"  - {line}" for line in lines)


def known(names: Sequence[str]) -> str:
    """List names for an error message, e.g. ``Known: DISAM, ERM``."""
    return "Known: " + (", ".join(sorted(names)) or "none")
