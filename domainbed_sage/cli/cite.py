"""`domainbed-sage cite`: BibTeX of the suite, and of the algorithms and datasets that results rest on."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_sage.cli import machine, results_folders
from domainbed_sage.core.errors import UserError, known
from domainbed_sage.data import own
from domainbed_sage.data.multitask.specs import task_datasets
from domainbed_sage.data.specs import datasets, find
from domainbed_sage.results import references

_DESCRIPTION = """Print BibTeX of the suite, the SAGE paper and DomainBed, whose protocol it follows, and of the
algorithms and datasets of results folders, or of those that are named. The exit status is 1 if a run, or the plan of a
folder, is unreadable."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "results", type=Path, nargs="*", metavar="RESULTS_DIR", help="folders that hold the run directories"
    )
    parser.add_argument("--algorithm", nargs="+", default=[], metavar="NAME", help="also cite these algorithms")
    parser.add_argument("--solver", nargs="+", default=[], metavar="NAME", help="also cite these multi-task solvers")
    parser.add_argument("--dataset", nargs="+", default=[], metavar="NAME", help="also cite these datasets")
    machine.add_plugin_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Print the entries; return 1 if something in a folder is unreadable.

    Raises:
        UserError: a name is not known, a folder holds no runs, or there are contradictory ones.
    """
    machine.load_plugins(args)
    named = [name if name in task_datasets else find(own.known(name)).name for name in args.dataset]
    solvers = references.mapping()["solvers"]
    if unknown := [name for name in args.solver if name not in solvers]:
        raise UserError(f"No solver {', '.join(unknown)} has a source here. {known(list(solvers))}.")
    algorithms, data, used, faults = _of_folders(args.results)
    papers = _papers(algorithms, args.algorithm)
    citations = {name: datasets[name].citation for name in [*data, *named] if name in datasets}
    asked = ([*algorithms, *args.algorithm], [*data, *named], papers | citations, [*used, *args.solver])
    print(references.bibtex(*asked))
    return results_folders.name_unreadable(args.results, faults)


def _of_folders(results: Sequence[Path]) -> tuple[list[str], list[str], list[str], list[str]]:
    """Algorithms, datasets and solvers of finished runs, and what is unreadable; what is left out goes to stderr."""
    if not results:
        return [], [], [], []
    from domainbed_sage.results import task_runs

    kinds = {folder: task_runs.kinds(folder) for folder in results}
    several = [task_runs.load(folder) for folder, found in kinds.items() if True in found]
    runs = [run for found in several for run in found.runs]
    names = [list(dict.fromkeys(getattr(run, what) for run in runs)) for what in ("algorithm", "dataset", "solver")]
    faults = [fault for found in several for fault in found.unreadable]
    others = [folder for folder, found in kinds.items() if False in found]
    if not others:
        return names[0], names[1], names[2], faults
    from domainbed_sage.results.joined import load_folders

    loaded = load_folders(others)
    for note in loaded.left_out():
        print(f"Note: {note}", file=sys.stderr)
    algorithms, data = references.used(loaded.records)
    return [*algorithms, *names[0]], [*data, *names[1]], names[2], [*loaded.faults, *faults]


def _papers(found: Sequence[str], named: Sequence[str]) -> dict[str, str]:
    """The papers that algorithms without an entry state, by name; those of records need not be registered here.

    Raises:
        UserError: one that is named is not known.
    """
    if set(references.mapping()["algorithms"]).issuperset((*found, *named)):
        return {}
    from domainbed_sage.algorithms import algorithms

    papers = {name: algorithms[name].paper for name in named}
    return papers | {name: algorithms[name].paper for name in found if name in algorithms}
