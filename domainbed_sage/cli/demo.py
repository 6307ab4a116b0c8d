"""`domainbed-sage demo`: the demo sweep, its tables, and where they are."""

import argparse
import time
from pathlib import Path

from domainbed_sage.cli import sweep
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.resources import shipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `demo`."""
    parser.add_argument("--output_dir", type=Path, help="results folder; by default results/demo")
    sweep.add_run_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the demo sweep, print its table, and write its report.

    Raises:
        UserError: see `sweep`.
    """
    from domainbed_sage.cli import report, table
    from domainbed_sage.sweeps.sweep import read_sweep

    began = time.monotonic()
    args.action, args.file = "run", shipped("sweeps/demo.yaml")
    demo = read_sweep(args.file)
    folder = args.output_dir or Path("results") / demo.name
    algorithms = ", ".join(demo.algorithms)
    print(folded(f"{len(demo.runs())} runs: {algorithms} on EmojiStyles, each style held out in turn."))
    failed = sweep.main(args)
    if not failed:
        _, faults = table.show([folder], table.Wanted(formats=table.FORMATS[:1]))
        page, _ = report.write([folder], folder / report.PAGE)
        print(f"\nThe demo took {(time.monotonic() - began) / 60:.1f} minutes. In {folder} there are:")
        print("  table.md, table.tex, table.csv   the table")
        print("  table.png                        its picture")
        print("  curves.png                       training curves")
        print("  <run>/results.jsonl              the records, in DomainBed's format")
        print("  report.html, report.json         all of it on one page, and its numbers\n")
        print(f"The report, to open in a browser: {page}")
        return int(bool(faults))
    return failed
