"""`domainbed-sage table`: from a folder of runs to tables and pictures."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from domainbed_sage.data.specs import datasets
from domainbed_sage.results import paper, render, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.selection import METHODS

_DESCRIPTION = """Print the tables of a results folder, ours or DomainBed's, and write them as Markdown, LaTeX, CSV and
PNG. Runs that are not finished, missing runs and foreign entries are named below the tables."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR", help="the folder that holds the run directories")
    parser.add_argument(
        "--selection",
        choices=(*METHODS, "all"),
        default="training-domain",
        help="how checkpoints and hyperparameters are chosen (default: %(default)s)",
    )
    parser.add_argument("--paper", action="store_true", help="also compare with Table 1 of the SAGE paper")
    parser.add_argument("--include-unfinished", action="store_true", help="also use runs that are not finished")
    parser.add_argument("--latex", action="store_true", help="print LaTeX instead of plain text")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the files here (default: RESULTS_DIR)")


def main(args: argparse.Namespace) -> int:
    """Print and write the tables.

    Raises:
        UserError: the folder holds no runs, or contradictory ones.
    """
    methods = list(METHODS) if args.selection == "all" else [args.selection]
    readable_only = args.out is None and args.results.is_dir() and not os.access(args.results, os.W_OK)
    with tempfile.TemporaryDirectory() as nowhere:
        written = show(
            args.results,
            methods,
            out=Path(nowhere) if readable_only else args.out,
            with_paper=args.paper,
            include_unfinished=args.include_unfinished,
            as_latex=args.latex,
        )
    if readable_only:
        print(f"{args.results} cannot be written to, so no file was written. Say where with --out.", file=sys.stderr)
    else:
        print("Wrote " + ", ".join(map(str, written)))
    return 0


def show(
    results: Path,
    methods: Sequence[str] = ("training-domain",),
    *,
    out: Path | None = None,
    with_paper: bool = False,
    include_unfinished: bool = False,
    as_latex: bool = False,
) -> list[Path]:
    """Print the tables of a results folder, write them and their pictures, and return what was written.

    Args:
        results: the folder of the run directories.
        methods: names in `METHODS`.
        out: where to write; by default `results`.
        with_paper: also compare with the printed Table 1.
        include_unfinished: also use runs that are not finished.
        as_latex: print LaTeX instead of plain text.

    Raises:
        UserError: the folder holds no runs, or contradictory ones.
    """
    loaded = load_records(results, include_unfinished=include_unfinished)
    folder, written = out or results, []
    for method in methods:
        suffix = f"-{method}" if len(methods) > 1 else ""
        table = tables.build(loaded.records, method, expected=_planned(results), notes=loaded.notes())
        print((render.latex if as_latex else render.text)(table))
        written += render.write_all(table, folder, stem=f"table{suffix}", chance=_chance())
        if with_paper:
            comparison = paper.compare(table)
            print((paper.latex if as_latex else paper.text)(comparison))
            written += paper.write_all(comparison, folder, stem=f"paper{suffix}")
    if any(run.single for run in loaded.records):
        written.append(render.curves(loaded.records, folder))
    return written


def _planned(results: Path) -> list[tables.Key] | None:
    """What the sweep plans, from the `plan.json` that it left in its results folder; `None` without one."""
    plan = results / "plan.json"
    if not plan.exists():
        return None
    return [
        (dataset, algorithm, envs[0], trial)
        for dataset, algorithm, envs, trial in json.loads(plan.read_text())
        if len(envs) == 1
    ]


def _chance() -> dict[str, float]:
    """Accuracy of guessing a class, percent, of each dataset."""
    return {name: 100 / spec.num_classes for name, spec in datasets.items()}
