"""`domainbed-sage table`: from a folder of runs to tables and pictures."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from domainbed_sage.cli import as_json, results_folders
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.core.files import write_atomically

if TYPE_CHECKING:
    from domainbed_sage.results.loaded import Loaded
    from domainbed_sage.results.looks import Look
    from domainbed_sage.results.paper import Comparison
    from domainbed_sage.results.tables import Table
    from domainbed_sage.results.zero_shot import Verdict

FORMATS = ("png", "pdf", "svg")  # `results.picture.FORMATS`
FORMS = ("text", "latex", "json")
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
        help="also compare with Table 1 of the SAGE paper, runs on several tasks with its Table 2 and F-MTL's tables, "
        "and zero-shot runs with published accuracies of CLIP",
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
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--latex", action="store_true", help="print LaTeX instead of plain text")
    as_json.add_argument(forms)
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
        with_paper: also compare with the printed tables, and zero-shot runs with published accuracies.
        include_unfinished: also use runs that are not finished.
        form: what to print, one of `FORMS`.
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
    form: str = "text"
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
        form=next((form for form in FORMS[1:] if getattr(args, form)), FORMS[0]),
        formats=args.format or FORMATS[:1] * args.pictures,
        interval=args.interval,
        out=args.out,
    )
    from domainbed_sage.cli import task_table

    written: list[Path] = []
    faults: list[str] = []
    for show_one, folders in task_table.divided(args.results, wanted, show):
        new, damaged = show_one(folders, wanted)
        written, faults = written + new, faults + damaged
    if written:
        print(folded("Wrote " + ", ".join(map(str, written))), file=sys.stderr if args.json else sys.stdout)
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
    made = [_made(part, method, wanted) for method in wanted.methods]
    verdicts = _zero_shot(part) if wanted.with_paper else None
    _print(made, verdicts, wanted.form)
    writers = [writer for one in made for writer in _writers(one, wanted, drawn)]
    if verdicts is not None:
        writers.append(partial(_write_verdicts, verdicts))
    if wanted.formats and any(run.single for run in part.records):
        writers.append(partial(_draw_curves, part, drawn, wanted.formats))
    results_folders.name_unreadable(results, whole.faults)
    return write_files(writers, results, wanted.out), whole.faults


class Made(NamedTuple):
    """The tables of one selection method, the paper's averages beside them if wanted, and what its files are called."""

    table: "Table"
    beside: "Comparison | None"
    suffix: str


def _made(loaded: "Loaded", method: str, wanted: Wanted) -> Made:
    from domainbed_sage.results import paper, tables, zero_shot

    table = tables.build(
        loaded.records,
        method,
        expected=loaded.planned,
        notes=loaded.notes(begun_told=True),
        begun=loaded.begun,
        interval=wanted.interval,
    )
    if wanted.only_averages:
        table = replace(table, grids=())
    compared = wanted.with_paper and any(run.algorithm != zero_shot.ALGORITHM for run in loaded.records)
    suffix = (f"-{method}" if len(wanted.methods) > 1 else "") + "-interval" * wanted.interval
    return Made(table, paper.compare(table, loaded.records) if compared else None, suffix)


def _zero_shot(loaded: "Loaded") -> "list[Verdict] | None":
    from domainbed_sage.results import zero_shot

    there = any(run.algorithm == zero_shot.ALGORITHM for run in loaded.records)
    return zero_shot.check(loaded.records) if there else None


def _print(made: Sequence[Made], verdicts: "Sequence[Verdict] | None", form: str) -> None:
    from domainbed_sage.results import paper, plain, render, zero_shot

    if form == "json":
        tables = [
            plain.table(table) | {"paper": None if beside is None else plain.paper(beside)} for table, beside, _ in made
        ]
        as_json.show({"unit": "percent", "tables": tables, "zero_shot": verdicts})
        return
    for table, beside, _ in made:
        print(getattr(render, form)(table))
        if beside is not None:
            print(getattr(paper, form)(beside))
    if verdicts is not None:
        print(zero_shot.text(verdicts))


def _writers(made: Made, wanted: Wanted, drawn: "Mapping[str, Look]") -> Iterator[Writer]:
    from domainbed_sage.results import paper, render

    yield partial(render.write_all, made.table, stem=f"table{made.suffix}")
    if wanted.formats:
        yield partial(_draw, made.table, drawn, f"table{made.suffix}", wanted.formats)
    if made.beside is not None:
        yield partial(paper.write_all, made.beside, stem=f"paper{made.suffix}")


def _write_verdicts(verdicts: "Sequence[Verdict]", folder: Path) -> list[Path]:
    from domainbed_sage.results import zero_shot

    return [write_atomically(folder / "zero_shot.txt", zero_shot.text(verdicts) + "\n")]


def write_files(writers: Sequence[Writer], results: Sequence[Path], out: Path | None) -> list[Path]:
    """Let the writers write into `out`, or the one results folder; say on stderr why nothing is written, if so.

    Raises:
        UserError: `out` cannot be written to, or the disk is full.
    """
    if out is None and len(results) > 1:
        why = "Not written: these are several results folders. Say where to write with --out DIR."
        print(folded(why), file=sys.stderr)
        return []
    try:
        return [path for write in writers for path in write(out or results[0])]
    except UserError as error:
        if out is not None or isinstance(error, NoSpace):
            raise
        print(folded(f"Not written: {error} Tables can be written elsewhere with --out DIR."), file=sys.stderr)
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
