"""The exceptions whose messages are written for the user of the suite."""

import pickle
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

LONGEST = 100  # characters of a value in a message


class UserError(ValueError):
    """An error the user can fix: what is wrong, what was found, what is allowed, what to do.

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


@dataclass(frozen=True)
class ErrorReport:
    """An exception on its way to another process.

    Not every exception survives pickling: a constructor may need other arguments, a class may be known in one process
    only, an attribute may hold a lock. One that does not arrives as a `UserError` with the same message if it was one,
    and otherwise as an exception of the same name.

    Attributes:
        kind: name of its class.
        message: its text.
        mistakes: see `UserError`; `None` if it is another exception.
        pickled: the exception itself; empty if it cannot be pickled.
        trace: its stack trace.
    """

    kind: str
    message: str
    mistakes: tuple[str, ...] | None
    pickled: bytes
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> "ErrorReport":
        """Report an exception that was caught."""
        told = traceback.TracebackException.from_exception(error)  # copes even where `str(error)` fails
        mistakes = error.mistakes if isinstance(error, UserError) else None
        pickled = b""
        with suppress(Exception):
            pickled = pickle.dumps(error)
        return cls(type(error).__name__, str(told), mistakes, pickled, "".join(told.format()))

    def error(self) -> Exception:
        """The exception, to be raised here; its original stack trace is attached as a note."""
        error = self._original() or self._stand_in()
        error.add_note(f"In another process:\n{self.trace}")
        return error

    def _original(self) -> Exception | None:
        with suppress(Exception):
            error = pickle.loads(self.pickled)
            if isinstance(error, Exception) and (type(error).__name__, str(error)) == (self.kind, self.message):
                return error
        return None

    def _stand_in(self) -> Exception:
        if self.mistakes is not None:
            return UserError(self.message, self.mistakes)
        return type(self.kind, (RuntimeError,), {})(self.message)


def described(error: BaseException) -> str:
    """Kind and message of an exception of somebody else's code, whose message may be one that cannot be made."""
    return f"{type(error).__name__}: {traceback.TracebackException.from_exception(error)}"


def raise_all(mistakes: Sequence[str], where: str, advice: str = "") -> None:
    """Raise one `UserError` that lists every mistake found in `where`, then `advice`; do nothing when there is none."""
    if mistakes:
        listed = f"{counted(len(mistakes), 'mistake')} in {where}:\n{bullets(mistakes)}"
        raise UserError(f"{listed}\n{advice}" if advice else listed, mistakes)


def counted(number: int, noun: str) -> str:
    """A count with its noun, e.g. ``1 run``, ``2,000 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def bullets(lines: Sequence[str]) -> str:
    """The lines as an indented list."""
    return "\n".join(f"  - {line}" for line in lines)


def known(names: Sequence[str]) -> str:
    """List names for an error message, e.g. ``Known: DISAM, ERM``."""
    return "Known: " + (", ".join(sorted(names)) or "none")


def near(name: str, names: Iterable[str]) -> str:
    """A question for an error message, e.g. `` Did you mean 'SAGE'?``; empty where no known name is similar."""
    by_lower = {known.lower(): known for known in reversed(list(names))}
    found = get_close_matches(name.lower(), by_lower, 1)
    return f" Did you mean {by_lower[found[0]]!r}?" if found else ""


def shown(value: Any) -> str:
    """Format a value for an error message: as Python writes it, control characters escaped, and shortened."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
