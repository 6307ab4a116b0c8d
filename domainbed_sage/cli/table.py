"""`domainbed-sage table`: from a folder of runs to tables and pictures."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.core.errors import NoSpace, UserError, bullets
from domainbed_sage.core.files import write_atomically

if TYPE_CHECKING:
    from domainbed_sage.results.records import RunRecord
    from domainbed_sage.results.tables import Table

SELECTIONS = ("training-domain", "leave-one-domain-out", "oracle")  # names in `results.selection.METHODS`
_DESCRIPTION = """Print the tables of a results folder, ours or DomainBed's, and write them as Markdown, LaTeX and
CSV. Runs that are not finished, missing runs and foreign entries are named below the tables. The exit status is 1 if a
run, or the plan of the folder, is unreadable: it is left out and named below, too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR", help="the folder that holds the run directories")
    parser.add_argument(
        "--selection",
        choices=(*SELECTIONS, "all"),
        default="training-domain",
        help="how checkpoints and hyperparameters are chosen (default: %(default)s)",
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="also compare with Table 1 of the SAGE paper, and zero-shot runs with published accuracies of CLIP",
    )
    parser.add_argument("--include-unfinished", action="store_true", help="also use runs that are not finished")
    parser.add_argument("--pictures", action="store_true", help="also draw the table and the training curves, as PNG")
    parser.add_argument(
        "--interval",
        action="store_true",
        help="± is the half-width of a 95%% confidence interval over trials, in place of DomainBed's standard error",
    )
    parser.add_argument("--latex", action="store_true", help="print LaTeX instead of plain text")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the files here (default: RESULTS_DIR)")


def main(args: argparse.Namespace) -> int:
    """Print and write the tables; return 1 if something in the folder is unreadable.

    Raises:
        UserError: the folder holds no runs, or contradictory ones.
    """
    methods = list(SELECTIONS) if args.selection == "all" else [args.selection]
    written, faults = show(
        args.results,
        methods,
        out=args.out,
        with_paper=args.paper,
        include_unfinished=args.include_unfinished,
        as_latex=args.latex,
        pictures=args.pictures,
        interval=args.interval,
    )
    if written:
        print("Wrote " + ", ".join(map(str, written)))
    return int(bool(faults))


def show(
    results: Path,
    methods: Sequence[str] = ("training-domain",),
    *,
    out: Path | None = None,
    with_paper: bool = False,
    include_unfinished: bool = False,
    as_latex: bool = False,
    pictures: bool = False,
    interval: bool = False,
) -> tuple[list[Path], list[str]]:
    """Print the tables of a results folder, write them, and return what was written and what is unreadable.

    Unreadable runs, which are left out, and an unreadable plan are named on stderr below the tables. A results folder
    that cannot be written to is only printed, and a note on stderr says so.

    Args:
        results: the folder of the run directories.
        methods: names in `SELECTIONS`.
        out: where to write; by default `results`.
        with_paper: also compare with the printed Table 1, and zero-shot runs with published accuracies.
        include_unfinished: also use runs that are not finished.
        as_latex: print LaTeX instead of plain text.
        pictures: also draw each table, and the training curves.
        interval: print half-widths of 95% confidence intervals, and write files of other names, ``…-interval``.

    Raises:
        UserError: the folder holds no runs, or contradictory ones.
    """
    from domainbed_sage.results import paper, render, tables, zero_shot
    from domainbed_sage.results.folder import load_records

    loaded = load_records(results, include_unfinished=include_unfinished)
    folder = out or results
    writers: list[Callable[[], list[Path]]] = []
    for method in methods:
        suffix = (f"-{method}" if len(methods) > 1 else "") + "-interval" * interval
        notes = loaded.notes()
        table = tables.build(loaded.records, method, expected=loaded.planned, notes=notes, interval=interval)
        print((render.latex if as_latex else render.text)(table))
        writers.append(partial(render.write_all, table, folder, stem=f"table{suffix}"))
        if pictures:
            writers.append(partial(_draw, table, folder / f"table{suffix}.png"))
        if with_paper and any(run.algorithm != zero_shot.ALGORITHM for run in loaded.records):
            comparison = paper.compare(table, loaded.records)
            print((paper.latex if as_latex else paper.text)(comparison))
            writers.append(partial(paper.write_all, comparison, folder, stem=f"paper{suffix}"))
    if with_paper and any(run.algorithm == zero_shot.ALGORITHM for run in loaded.records):
        verdicts = zero_shot.text(zero_shot.check(loaded.records))
        print(verdicts)
        writers.append(lambda: [write_atomically(folder / "zero_shot.txt", verdicts + "\n")])
    if pictures and any(run.single for run in loaded.records):
        writers.append(partial(_draw_curves, loaded.records, folder / "curves.png"))
    if loaded.faults:
        print(f"Unreadable in {results}:\n{bullets(loaded.faults)}", file=sys.stderr)
    return _written(writers, out), loaded.faults


def _written(writers: Sequence[Callable[[], list[Path]]], out: Path | None) -> list[Path]:
    try:
        return [path for write in writers for path in write()]
    except UserError as error:
        if out is not None or isinstance(error, NoSpace):
            raise
        print(f"Not written: {error} Tables can be written elsewhere with --out DIR.", file=sys.stderr)
        return []


def _draw(table: "Table", path: Path) -> list[Path]:
    from domainbed_sage.results import picture

    return [write_atomically(path, picture.dots(table, _chance()))]


def _draw_curves(records: "Sequence[RunRecord]", path: Path) -> list[Path]:
    from domainbed_sage.results import picture
    from domainbed_sage.results.expected import environment_names

    return [write_atomically(path, picture.curves(records, environment_names(records, (), None)))]


def _chance() -> dict[str, float]:
    """Accuracy of guessing a class, percent, of each dataset."""
    from domainbed_sage.data.specs import datasets

    return {name: 100 / spec.num_classes for name, spec in datasets.items()}
