"""Print and write the tables of a results folder, ours or DomainBed's, under all three model selection methods."""

import argparse
import sys
from pathlib import Path

from domainbed_sage.cli import guarded, table
from domainbed_sage.results.selection import METHODS


def main(args: argparse.Namespace) -> int:
    """Print the tables, and write them beside the runs."""
    table.show(args.input_dir, list(METHODS), as_latex=args.latex)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input_dir", type=Path, required=True)
    parser.add_argument("--latex", action="store_true")
    parser.set_defaults(main=main)
    sys.exit(guarded(parser))
