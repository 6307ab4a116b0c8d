"""Print and write the tables of a results folder (of this suite or of DomainBed) for all three selection methods."""

import argparse
import sys
from pathlib import Path

from domainbed_sage.cli import guarded, results_folders, table
from domainbed_sage.cli.parser import Parser


def main(args: argparse.Namespace) -> int:
    """Print the tables and write them to the results folder; return 1 if a run in it is unreadable."""
    _, faults = table.show([args.input_dir], table.Wanted(results_folders.DOMAINBED, as_latex=args.latex))
    return int(bool(faults))


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument("--input_dir", type=Path, required=True)
    parser.add_argument("--latex", action="store_true")
    parser.set_defaults(main=main)
    sys.exit(guarded(parser))
