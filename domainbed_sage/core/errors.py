"""The exceptions whose messages are written for the user of the suite."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

LONGEST = 100  # characters of a value in a message


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


class Mistake(str):
    """One entry of `UserError.mistakes`, and the name of the setting or hyperparameter that it is about."""

    about: str

    def __new__(cls, text: str, about: str = "") -> "Mistake":  # noqa: D102
        made = super().__new__(cls, text)
        made.about = about
        return made


class NoSpace(UserError):  # noqa: N818 - reads as what it is
    """The disk is full, or too full to begin."""


class Stopped(Exception):  # noqa: N818 - an outcome, not an error
    """The run was asked to stop; its state is saved, and the same command continues it."""


def raise_all(mistakes: Sequence[str], where: str) -> None:
    """Raise one `UserError` that lists every mistake found in `where`; do nothing when there is none."""
    if mistakes:
        raise UserError(f"{counted(len(mistakes), 'mistake')} in {where}:\n" + bullets(mistakes), mistakes)


def counted(number: int, noun: str) -> str:
    """A number of things, e.g. ``1 run``, ``2,000 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def bullets(lines: Sequence[str]) -> str:
    """The lines as an indented list."""
    return "\n".join(f"  - {line}" for line in lines)


def known(names: Sequence[str]) -> str:
    """List names for an error message, e.g. ``Known: DISAM, ERM``."""
    return "Known: " + (", ".join(sorted(names)) or "none")


def near(name: str, names: Iterable[str]) -> str:
    """A question for an error message, e.g. `` Did you mean 'SAGE'?``; empty where no known name is near."""
    by_lower = {known.lower(): known for known in reversed(list(names))}
    found = get_close_matches(name.lower(), by_lower, 1)
    return f" Did you mean {by_lower[found[0]]!r}?" if found else ""


def shown(value: Any) -> str:
    """A value that was found, for an error message: as Python writes it, control characters escaped, and shortened."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
