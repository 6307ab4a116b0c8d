"""`domainbed-sage verify`: replay recorded trajectories."""

import argparse
from pathlib import Path

from domainbed_sage.cli import machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = (
        "Replay recorded trajectories with our algorithms in float64 and print, per method, the largest relative "
        "deviation over all steps: of the weights after each step that starts from the recorded weights, of the loss, "
        "of SAGE's agreement S, and of the weights along a free-running trajectory. "
        "Exit status 1 when a step deviates by more than 1e-09."
    )
    parser.add_argument(
        "goldens", type=Path, metavar="GOLDENS.npz", help="recording; its .json file is in the same folder"
    )
    machine.add_plugin_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Print the deviations.

    Raises:
        UserError: the file is not a recording.
    """
    from domainbed_sage.training.verify import verify

    machine.load_plugins(args)
    text, ok = verify(args.goldens)
    print(text)
    return 0 if ok else 1
