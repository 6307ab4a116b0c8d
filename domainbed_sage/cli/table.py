"""`domainbed-sage table`: from a folder of runs to tables and pictures."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.cli import results_folders
from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.core.files import write_atomically

if TYPE_CHECKING:
    from domainbed_sage.results.folder import Loaded
    from domainbed_sage.results.looks import Look
    from domainbed_sage.results.tables import Table

FORMATS = ("png", "pdf", "svg")  # `results.picture.FORMATS`
_DESCRIPTION = """Print the tables of a results folder, ours or DomainBed's, or of several folders as one, and write
them as Markdown, LaTeX and CSV. Runs that are not finished, missing runs and foreign entries are named below the
tables. The exit status is 1 if a run, or the plan of a folder, is unreadable: it is left out and named below, too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    results_folders.add_results(parser)
    results_folders.add_selection(parser, "all", about="; all: by DomainBed's three")
    parser.add_argument("--algorithms", nargs="+", metavar="ROW", help="only these rows, by their labels")
    parser.add_argument("--datasets", nargs="+", metavar="DATASET", help="only these datasets")
    parser.add_argument("--only", choices=("averages",), help="only the table of averages over datasets")
    parser.add_argument(
        "--paper",
        action="store_true",
        help="also compare with Table 1 of the SAGE paper, and zero-shot runs with published accuracies of CLIP",
    )
    parser.add_argument("--include-unfinished", action="store_true", help="also use runs that are not finished")
    parser.add_argument("--pictures", action="store_true", help="also draw the table and the training curves")
    parser.add_argument(
        "--format", nargs="+", choices=FORMATS, help="draw the pictures in these formats (with --pictures: png)"
    )
    parser.add_argument(
        "--interval",
        action="store_true",
        help="± is the half-width of a 95%% confidence interval over trials, in place of DomainBed's standard error",
    )
    parser.add_argument("--latex", action="store_true", help="print LaTeX instead of plain text")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write the files here (default: RESULTS_DIR, if it is only one)"
    )


@dataclass(frozen=True)
class Wanted:
    """What to print and write of results.

    Attributes:
        methods: names in `results_folders.SELECTIONS`.
        rows: labels of the rows to show; None for all.
        datasets: the datasets to show; None for all.
        only_averages: leave out the tables of single datasets.
        with_paper: also compare with the printed Table 1, and zero-shot runs with published accuracies.
        include_unfinished: also use runs that are not finished.
        as_latex: print LaTeX instead of plain text.
        formats: in which to draw each table and the training curves; none: no pictures.
        interval: print half-widths of 95% confidence intervals, and write files of other names, ``…-interval``.
        out: where to write; by default the results folder, if it is only one.
    """

    methods: Sequence[str] = ("training-domain",)
    rows: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    only_averages: bool = False
    with_paper: bool = False
    include_unfinished: bool = False
    as_latex: bool = False
    formats: Sequence[str] = ()
    interval: bool = False
    out: Path | None = None


Writer = Callable[[Path], list[Path]]  # into a folder


def main(args: argparse.Namespace) -> int:
    """Print and write the tables; return 1 if something in a folder is unreadable.

    Raises:
        UserError: a folder holds no runs, or there are contradictory ones.
    """
    wanted = Wanted(
        methods=results_folders.DOMAINBED if args.selection == "all" else [args.selection],
        rows=args.algorithms,
        datasets=args.datasets,
        only_averages=args.only == "averages",
        with_paper=args.paper,
        include_unfinished=args.include_unfinished,
        as_latex=args.latex,
        formats=args.format or FORMATS[:1] * args.pictures,
        interval=args.interval,
        out=args.out,
    )
    from domainbed_sage.results import task_runs

    several = [task_runs.is_there(folder) for folder in args.results]
    written, faults = show_tasks(args.results, wanted) if any(several) else show(args.results, wanted)
    if written:
        print("Wrote " + ", ".join(map(str, written)))
    return int(bool(faults))


def show(results: Sequence[Path], wanted: Wanted) -> tuple[list[Path], list[str]]:
    """Print the tables of results folders, write them, and return what was written and what is unreadable.

    Unreadable runs, which are left out, and an unreadable plan are named on stderr below the tables. Tables of a folder
    that cannot be written to, and of several folders without `out`, are only printed, and a note on stderr says so.

    Raises:
        UserError: a folder holds no runs, there are contradictory ones, or a row or dataset is not there.
    """
    from domainbed_sage.results import looks
    from domainbed_sage.results.joined import load_folders
    from domainbed_sage.results.part import only

    whole = load_folders(results, include_unfinished=wanted.include_unfinished)
    part = only(whole, wanted.rows, wanted.datasets)
    drawn = looks.of_folder(whole) if wanted.formats else {}
    writers = [writer for method in wanted.methods for writer in _one_method(part, method, wanted, drawn)]
    writers += _zero_shot(part) if wanted.with_paper else []
    if wanted.formats and any(run.single for run in part.records):
        writers.append(partial(_draw_curves, part, drawn, wanted.formats))
    results_folders.name_unreadable(results, whole.faults)
    return _written(writers, results, wanted.out), whole.faults


def show_tasks(results: Sequence[Path], wanted: Wanted) -> tuple[list[Path], list[str]]:
    """Print the tables of a folder of runs on several tasks, and write them; see `show`.

    Raises:
        UserError: there is more than one folder, or no finished run.
    """
    from domainbed_sage.results import task_runs, task_tables

    if len(results) > 1:
        raise UserError(f"Runs on several tasks are shown of one folder at a time. Found {len(results)} folders.")
    found = task_runs.load(results[0])
    if not found.runs:
        raise UserError(f"No run in {results[0]} is finished: {len(found.unfinished)} of them have begun.")
    tables = task_tables.build(found)
    print("\n".join(map(task_tables.text, tables)), end="")
    results_folders.name_unreadable(results, found.unreadable)
    return _written([partial(task_tables.write_all, tables)], results, wanted.out), list(found.unreadable)


def _one_method(loaded: "Loaded", method: str, wanted: Wanted, drawn: "Mapping[str, Look]") -> Iterator[Writer]:
    """Print the table of one selection method, and what it takes to write it."""
    from domainbed_sage.results import paper, render, tables, zero_shot

    suffix = (f"-{method}" if len(wanted.methods) > 1 else "") + "-interval" * wanted.interval
    notes = loaded.notes(begun_told=True)
    table = tables.build(
        loaded.records,
        method,
        expected=loaded.planned,
        notes=notes,
        begun=loaded.begun,
        interval=wanted.interval,
    )
    if wanted.only_averages:
        table = replace(table, grids=())
    print((render.latex if wanted.as_latex else render.text)(table))
    yield partial(render.write_all, table, stem=f"table{suffix}")
    if wanted.formats:
        yield partial(_draw, table, drawn, f"table{suffix}", wanted.formats)
    if wanted.with_paper and any(run.algorithm != zero_shot.ALGORITHM for run in loaded.records):
        comparison = paper.compare(table, loaded.records)
        print((paper.latex if wanted.as_latex else paper.text)(comparison))
        yield partial(paper.write_all, comparison, stem=f"paper{suffix}")


def _zero_shot(loaded: "Loaded") -> Iterator[Writer]:
    from domainbed_sage.results import zero_shot

    if any(run.algorithm == zero_shot.ALGORITHM for run in loaded.records):
        verdicts = zero_shot.text(zero_shot.check(loaded.records))
        print(verdicts)
        yield lambda folder: [write_atomically(folder / "zero_shot.txt", verdicts + "\n")]


def _written(writers: Sequence[Writer], results: Sequence[Path], out: Path | None) -> list[Path]:
    if out is None and len(results) > 1:
        print("Not written: these are several results folders. Say where to write with --out DIR.", file=sys.stderr)
        return []
    try:
        return [path for write in writers for path in write(out or results[0])]
    except UserError as error:
        if out is not None or isinstance(error, NoSpace):
            raise
        print(f"Not written: {error} Tables can be written elsewhere with --out DIR.", file=sys.stderr)
        return []


def _draw(table: "Table", drawn: "Mapping[str, Look]", stem: str, formats: Sequence[str], folder: Path) -> list[Path]:
    from domainbed_sage.results import dots, picture

    return picture.write_all(dots.draw(table, drawn, _chance()), folder, stem, formats)


def _draw_curves(loaded: "Loaded", drawn: "Mapping[str, Look]", formats: Sequence[str], folder: Path) -> list[Path]:
    from domainbed_sage.results import curves, picture, progress
    from domainbed_sage.results.expected import environment_names

    names = environment_names(loaded.records, loaded.planned or (), None)
    means = progress.means(progress.of_runs(loaded.records, names))
    return picture.write_all(curves.draw(means, names, drawn), folder, "curves", formats)


def _chance() -> dict[str, float]:
    """Accuracy of guessing a class, percent, of each dataset."""
    from domainbed_sage.data.specs import datasets

    return {name: 100 / spec.num_classes for name, spec in datasets.items()}
