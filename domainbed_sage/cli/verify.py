"""`domainbed-sage verify`: compute recorded numbers again."""

import argparse
from pathlib import Path

from domainbed_sage.cli import machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = (
        "Compute in float64 what was recorded of the authors' codes, and print the largest relative deviations. Of "
        "trajectories, per method and over all steps: the weights after each step that starts from the recorded "
        "weights, the loss, SAGE's agreement S, and the weights along a free-running trajectory. Of multi-task codes, "
        "also: directions and weights of solvers, losses, metrics and crops of scenes, a pass of MTAN, and Δm. Exit "
        "status 1 when a deviation is larger than its tolerance: 1e-09 for a step, otherwise the one that is printed."
    )
    parser.add_argument(
        "goldens",
        type=Path,
        nargs="+",
        metavar="GOLDENS.npz",
        help="recordings, each with its .json file in the same folder, and folders: all recordings in them",
    )
    machine.add_plugin_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Print the deviations of every recording, and, of more than one, which of them differ.

    Raises:
        UserError: a file is not a recording.
    """
    from domainbed_sage.training.replays import files

    machine.load_plugins(args)
    recordings, differ = files.found_in(args.goldens), []
    for path in recordings:
        text, ok = files.verify(path)
        print(f"{path}\n{text}\n" if len(recordings) > 1 else text, flush=True)
        differ += [] if ok else [str(path)]
    if len(recordings) > 1:
        verdict = f"differ: {', '.join(differ)}" if differ else "all within their tolerances"
        print(f"{len(recordings)} recordings, {verdict}.")
    return int(bool(differ))
