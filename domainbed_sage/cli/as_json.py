"""The option ``--json`` of commands that list things: everything they know, machine-readable."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from domainbed_sage.core import strict_json


def add_argument(parser: argparse._ActionsContainer) -> None:
    """Declare the option."""
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def show(things: Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    """Print one JSON object, or a list of them."""
    print(strict_json.dumps(things if isinstance(things, Mapping) else list(things)))
