"""The part of `domainbed-sage table` that shows runs on several tasks."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.cli import as_json, results_folders
from domainbed_sage.cli.table import Wanted, Writer, write_files
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.errors import UserError

if TYPE_CHECKING:
    from domainbed_sage.results.task_runs import TaskRun
    from domainbed_sage.results.task_tables import TaskTable


Show = Callable[[Sequence[Path], Wanted], tuple[list[Path], list[str]]]


def divided(results: Sequence[Path], wanted: Wanted, of_domains: Show) -> list[tuple[Show, list[Path]]]:
    """What shows the runs of results folders, and which of the folders have such runs.

    Args:
        results: the folders.
        wanted: its datasets, if there are any, decide.
        of_domains: shows runs of domain generalization.

    Raises:
        UserError: both kinds would have to be printed as one JSON document.
    """
    from domainbed_sage.data.multitask.specs import task_datasets
    from domainbed_sage.results import task_runs

    kinds = [task_runs.kinds(folder) for folder in results]
    there = {kind for found in kinds for kind in found}
    chosen = {name in task_datasets for name in wanted.datasets or ()} & there or there
    ways: list[tuple[Show, list[Path]]] = []
    for of_tasks, way in ((False, of_domains), (True, show)):
        folders = [folder for folder, found in zip(results, kinds, strict=True) if of_tasks in found & chosen]
        ways += [(way, folders)] if folders else []
    if len(ways) > 1 and wanted.form == "json":
        raise UserError(
            "There are runs of domain generalization and runs on several tasks. As JSON, one kind is printed at a "
            "time: choose datasets with --datasets."
        )
    return ways


def show(results: Sequence[Path], wanted: Wanted) -> tuple[list[Path], list[str]]:
    """Print the tables of a folder of runs on several tasks, and write them; see `table.show`.

    Raises:
        UserError: there is more than one folder, no finished run, or one of which the numbers cannot be averaged.
    """
    from domainbed_sage.results import task_agreement, task_runs, task_tables

    if len(results) > 1:
        raise UserError(f"Runs on several tasks are shown of one folder at a time. Found {len(results)} folders.")
    found = task_runs.only(task_runs.load(results[0]), wanted.rows, wanted.datasets)
    task_agreement.check_agreement(found.runs, results[0])
    if not found.runs:
        raise UserError(f"No run in {results[0]} is finished: {len(found.unfinished)} of them have begun.")
    if wanted.form == "latex":
        raise UserError("Tables of several tasks are printed as text or JSON, and written as Markdown and CSV.")
    tables = task_tables.build(found)
    writers: list[Writer] = [partial(task_tables.write_all, tables), *_printed(tables, wanted)]
    if wanted.formats:
        writers.append(partial(_draw, tables, found.runs, wanted.formats))
    results_folders.name_unreadable(results, found.unreadable)
    return write_files(writers, results, wanted.out), list(found.unreadable)


def _printed(tables: "Sequence[TaskTable]", wanted: Wanted) -> list[Writer]:
    """Print the tables, and those of the papers if wanted; return what writes these."""
    from domainbed_sage.results import task_paper, task_tables

    beside = [task_paper.compare(table) if wanted.with_paper else [] for table in tables]
    if wanted.form == "json":
        papers = [{"paper": [task_paper.plain(one) for one in found]} if wanted.with_paper else {} for found in beside]
        as_json.show({"tables": [task_tables.plain(t) | paper for t, paper in zip(tables, papers, strict=True)]})
    else:
        for table, found in zip(tables, beside, strict=True):
            print(task_tables.text(table))
            shown = [task_paper.text(one) for one in found] or [folded(task_paper.nothing(table)) + "\n"]
            print("\n".join(shown) if wanted.with_paper else "", end="")
    return [partial(task_paper.write_all, [one for found in beside for one in found])]


def _draw(tables: "Sequence[TaskTable]", runs: "Sequence[TaskRun]", formats: Sequence[str], folder: Path) -> list[Path]:
    from domainbed_sage.results import picture, task_dots

    return picture.write_all(task_dots.draw(tables, runs), folder, "tasks", formats)
