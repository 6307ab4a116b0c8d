"""`domainbed-sage report`: one HTML page about results folders, and its numbers as JSON."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_sage.cli import results_folders
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.errors import UserError, bullets

PAGE = "report.html"
_DESCRIPTION = """Write one page about results folders that needs no network and no server: tables, differences to a
reference with intervals, curves, cost, failures and all runs. Beside it, report.json holds its numbers. The exit status
is 1 if a run, or a plan, is unreadable: it is left out, and named on the page."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    results_folders.add_results(parser)
    parser.add_argument(
        "--reference", default="", metavar="METHOD", help="row to compare with (default: ERM, otherwise the first)"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="rows whose comparison was declared before the results were seen: p-values are adjusted for these only",
    )
    results_folders.add_selection(parser)
    parser.add_argument("--paper", action="store_true", help="also compare with Table 1 of the SAGE paper")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"write the page here (default: RESULTS_DIR/{PAGE}, of one folder)"
    )


def main(args: argparse.Namespace) -> int:
    """Write the page and its numbers; return 1 if something in the folders is unreadable.

    Raises:
        UserError: a folder holds no runs, a row that is named is not there, or the page cannot be written.
    """
    page, faults = write(
        args.results,
        _place(args.results, args.out),
        reference=args.reference,
        compared=args.compare,
        selection=args.selection,
        with_paper=args.paper,
    )
    print(folded(f"Wrote {page} and {page.with_suffix('.json')}"))
    if faults:
        print(f"Unreadable:\n{bullets(faults)}", file=sys.stderr)
    return int(bool(faults))


def write(
    results: Sequence[Path],
    out: Path,
    *,
    reference: str = "",
    compared: Sequence[str] = (),
    selection: str = "training-domain",
    with_paper: bool = False,
) -> tuple[Path, list[str]]:
    """Write the page; returns its path, and what is unreadable in the folders. See `main`."""
    from domainbed_sage.results.report import page
    from domainbed_sage.results.report.gathered import Wanted

    words = ["domainbed-sage", "report", *map(str, results)]
    words += ["--reference", reference] * bool(reference) + (["--compare", *compared] if compared else [])
    words += ["--selection", selection] * (selection != "training-domain") + ["--paper"] * with_paper
    wanted = Wanted(reference, tuple(compared), selection, with_paper, shlex.join(words))
    return out, page.write(results, wanted, out)


def _place(results: Sequence[Path], out: Path | None) -> Path:
    """Where the page is written."""
    if out is None:
        if len(results) > 1:
            raise UserError(f"{len(results)} results folders are given. Say where to write the page with --out FILE.")
        return results[0] / PAGE
    if out.is_dir():
        return out / PAGE
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out should be a folder, or a file that ends with .html. Found {out}.")
    return out
