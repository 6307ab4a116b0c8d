"""`domainbed-sage pack`: the records of a results folder in one file."""

import argparse
from pathlib import Path

_DESCRIPTION = """Write the records of all finished runs, and the plan, into one zip file. Put it into a folder of its
own, and `domainbed-sage table` reads that folder as if the runs were there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR", help="the folder that holds the run directories")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write runs.zip into this folder (default: RESULTS_DIR)"
    )


def main(args: argparse.Namespace) -> int:
    """Write the file.

    Raises:
        UserError: there is no finished run, or the file cannot be written.
    """
    from domainbed_sage.core.files import readable, write_atomically
    from domainbed_sage.results import packed

    content, runs = packed.pack(args.results)
    path = write_atomically((args.out or args.results) / packed.FILE, content)
    print(f"Packed {runs} finished run{'s' * (runs > 1)} of {args.results} into {path}: {readable(len(content))}.")
    return 0
