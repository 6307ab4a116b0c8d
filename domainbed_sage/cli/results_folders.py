"""What the commands that read results folders have in common: which folders, which selection, and what is damaged."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_sage.core.errors import bullets

DOMAINBED = ("training-domain", "leave-one-domain-out", "oracle")  # `results.selection.DOMAINBED`
SELECTIONS = (*DOMAINBED, "last")  # names in `results.selection.METHODS`


def add_results(parser: argparse.ArgumentParser) -> None:
    """Declare one or several results folders."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULTS_DIR",
        help="the folder that holds the run directories, or several",
    )


def add_selection(parser: argparse.ArgumentParser, *more: str, about: str = "") -> None:
    """Declare the model selection method; `more` are further choices, and `about` says what they are."""
    parser.add_argument(
        "--selection",
        choices=(*SELECTIONS, *more),
        default="training-domain",
        help=f"how checkpoints and hyperparameters are chosen{about} (default: %(default)s)",
    )


def name_unreadable(results: Sequence[Path], faults: Sequence[str]) -> int:
    """Say on stderr what is unreadable in the folders; the exit status."""
    if faults:
        print(f"Unreadable in {', '.join(map(str, results))}:\n{bullets(faults)}", file=sys.stderr)
    return int(bool(faults))
