"""The parser of the command line: argparse, with both spellings of a flag, and guesses for what it does not know."""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from domainbed_sage.core.errors import near

_CHOICE = re.compile(r"invalid choice: '(?P<found>.*?)' \(choose from (?P<known>.*)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A parser, of the command or of a subcommand.

    ``--output-dir`` and ``--output_dir`` are the same flag, which the help shows once. What is wrong is explained with
    the usage of the subcommand that it was given to, and with the nearest known flag, subcommand or choice.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse; unlike argparse's own, no flag may be left over, here or in a subcommand."""
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        found, left = super().parse_known_args([*map(self._as_declared, words[:end]), *words[end:]], namespace)
        if left:
            guesses = "".join(near(word.partition("=")[0], self._option_string_actions) for word in left[:1])
            self.error(f"unrecognized arguments: {' '.join(left)}.{guesses}")
        return found, left

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and end with status 2."""
        if match := _CHOICE.search(message):
            message += near(match["found"], re.findall(r"[^\s,']+", match["known"])).rstrip()
        super().error(message)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """The values of an argument; ``--flag=--`` gives the text ``--``, of which argparse makes an empty list."""
        doubled = arg_strings * 2 if action.option_strings and arg_strings == ["--"] else arg_strings
        return super()._get_values(action, doubled)  # it takes the first away

    def _as_declared(self, word: str) -> str:
        """A flag in the other spelling as it was declared; anything else as it is."""
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name in self._option_string_actions:
            return word
        return next(_same(name, self._option_string_actions), name) + equals + value


def _same(name: str, flags: Iterable[str]) -> Iterator[str]:
    return (flag for flag in flags if flag.replace("_", "-") == name.replace("_", "-"))
