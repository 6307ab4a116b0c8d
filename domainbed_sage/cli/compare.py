"""`domainbed-sage compare`: from a table to a claim."""

import argparse
import sys
from pathlib import Path

from domainbed_sage.cli import results_folders
from domainbed_sage.cli.terminal import folded

_FORMS = ("latex", "csv", "json", "sentence")
_DESCRIPTION = """Compare methods with a reference, paired by dataset, held-out environment and trial. Two questions are
answered apart: would other seeds and splits of these datasets give the same sign; and would other datasets like these?
Where all runs were trained with --keep_correctness, a third interval is for other test images.
Name all methods that you set out to compare, and no others: p-values are adjusted for their number. The exit status is
1 if a run, or the plan of a folder, is unreadable."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    results_folders.add_results(parser)
    parser.add_argument("--reference", default="ERM", metavar="METHOD", help="row to compare with (default: ERM)")
    parser.add_argument("--compare", nargs="+", required=True, metavar="METHOD", help="rows to compare with it")
    results_folders.add_selection(parser)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--latex", action="store_true", help="print a table in LaTeX")
    forms.add_argument("--csv", action="store_true", help="print every number as CSV")
    forms.add_argument("--json", action="store_true", help="print everything as JSON")
    forms.add_argument("--sentence", action="store_true", help="print sentences to copy into a paper")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="also write compare.txt, .md, .tex, .csv and .json here"
    )


def main(args: argparse.Namespace) -> int:
    """Print the comparison, and write it if that is asked for; return 1 if something in a folder is unreadable.

    Raises:
        UserError: a method has no results, a folder holds no runs, or there are contradictory ones.
    """
    from domainbed_sage.results import claims, compare, tables
    from domainbed_sage.results.joined import load_folders

    loaded = load_folders(args.results)
    table = tables.build(loaded.records, args.selection, expected=loaded.planned, notes=loaded.notes())
    comparison = compare.compare(table, args.reference, args.compare, args.results)
    form = next((form for form in _FORMS if getattr(args, form)), "text")
    print(getattr(claims, form)(comparison).rstrip("\n"))
    unprinted = comparison.notes if form in ("csv", "sentence") else ()
    for note in (*unprinted, *loaded.remarks, *loaded.left_out()):
        print(folded(f"Note: {note}"), file=sys.stderr)
    status = results_folders.name_unreadable(args.results, loaded.faults)
    if args.out:
        written = claims.write_all(comparison, args.out)
        print(folded("Wrote " + ", ".join(map(str, written))), file=sys.stderr)
    return status
