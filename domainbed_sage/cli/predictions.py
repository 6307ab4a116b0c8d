"""`domainbed-sage predictions`: pictures of what the networks of several tasks predict."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.cli import machine
from domainbed_sage.core.errors import UserError, known

if TYPE_CHECKING:
    from domainbed_sage.config import Machine

STEM = "predictions"
SAMPLES = (0, 1)
_DESCRIPTION = """Draw what finished runs on several tasks predict for test samples, beside what is true, one column for
each row of the table. The runs must have their model.pkl."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR", help="folder that holds the run directories")
    parser.add_argument("--samples", type=int, nargs="+", default=list(SAMPLES), help="numbers of test samples")
    parser.add_argument("--algorithms", nargs="+", metavar="ROW", help="only these rows of the table")
    parser.add_argument("--trial", type=int, default=0, help="which trial's networks (default: %(default)s)")
    parser.add_argument("--format", nargs="+", choices=("png", "pdf", "svg"), default=["png"], help="of the pictures")
    parser.add_argument("--out", type=Path, help="where to write; by default the results folder")
    machine.add_place_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Draw the predictions, and print where the pictures are.

    Raises:
        UserError: there is no such run, or it has no weights.
    """
    where = machine.place_from_arguments(args, args.results)
    for path in write(args.results, where, args.samples, args.trial, args.algorithms, args.format, args.out):
        print(f"Wrote {path}")
    return 0


def write(
    results: Path,
    where: "Machine",
    samples: Sequence[int] = SAMPLES,
    trial: int = 0,
    rows: Sequence[str] | None = None,
    formats: Sequence[str] = ("png",),
    out: Path | None = None,
) -> list[Path]:
    """Draw the predictions of the runs of a results folder, and return the pictures.

    Raises:
        UserError: see `main`.
    """
    from domainbed_sage.results import picture, scene_pictures, task_runs
    from domainbed_sage.results.task_tables import row_of
    from domainbed_sage.training.task_predictions import predicted

    runs = [run for run in task_runs.load(results).runs if run.trial_seed == trial]
    folders: dict[str, list[Path]] = {}
    for run in runs:
        folders.setdefault(row_of(run), []).append(results / run.name)
    if not folders:
        raise UserError(f"No run of trial {trial} in {results} is finished.")
    if missing := [row for row in rows or () if row not in folders]:
        raise UserError(f"{results} has no row {missing[0]!r}. {known(list(folders))}.")
    found = predicted({row: folders[row] for row in rows or folders}, where, samples)
    figures = scene_pictures.draw(found.dataset, found.numbers, found.images, found.words, found.truth, found.rows)
    return picture.write_all(figures, out or results, STEM, formats)
