"""`domainbed-sage sweep`: from a sweep file to results.

`list`, `status`, `logs` and `cancel` read the runs from the results folder, where the sweep was planned before, and
then need no PyTorch; see `sweeps.planning`.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed_sage.cli import launch, machine, plan, status
from domainbed_sage.cli.numbers import whole
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.errors import UserError, counted
from domainbed_sage.core.files import regular
from domainbed_sage.sweeps import planning, presets

if TYPE_CHECKING:
    from domainbed_sage.config import RunConfig
    from domainbed_sage.sweeps.local import Outcome
    from domainbed_sage.sweeps.sweep import Planned

    Runs = list[RunConfig]

LOOKING = ("list", "status", "logs", "cancel")  # actions that train nothing and need not check the runs again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `sweep` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, declare in (
        ("list", "every run, and whether it is done", status.add_list_arguments),
        ("plan", "runs, images, passes, hours", plan.add_arguments),
        ("run", "execute the missing runs on this machine", add_run_arguments),
        ("launch", "submit the missing runs to a cluster", launch.add_arguments),
        ("status", "where the sweep stands", status.add_arguments),
        ("cancel", "take its jobs out of the queue", None),
        ("retry", "submit failed runs again", launch.add_retry_arguments),
        ("logs", "what a run has written", status.add_log_arguments),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("file", type=Path, help="sweep file, or the name of a preset, e.g. demo")
        action.add_argument("--output_dir", type=Path, help="results folder; by default results/<name of the sweep>")
        if name not in ("run", "launch", "retry"):
            machine.add_plugin_argument(action)
            machine.add_data_argument(action)
        if declare is not None:
            declare(action)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `run`."""
    parser.add_argument(
        "--jobs",
        type=whole(1, machine.MOST_PROCESSES),
        help="runs at the same time; by default one per GPU, or one per two cores and at least two",
    )
    machine.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the requested action.

    Raises:
        UserError: the file has mistakes, or the action fails.
    """
    args.given, args.file = args.file, presets.locate(args.file)
    if args.action in LOOKING:
        return _look(args)
    name, every, folder = _read(args)
    runs = [config for _, config in every]
    keep = partial(keep_plan, args, name, every, folder)
    actions: dict[str, Any] = {
        "plan": lambda: plan.show(runs, args, keep),
        "run": lambda: _run(runs, folder, args, keep),
        "launch": lambda: _launch(name, runs, folder, args, keep),
        "retry": lambda: launch.retry(name, runs, folder, args, keep),
    }
    if args.action != "plan" or args.check:
        from domainbed_sage.sweeps import preflight

        left = [run for run in runs if not regular(folder / run.folder_name / "done")]
        preflight.check(left, machine.data_dir(args))
    return actions[args.action]() or 0


def _look(args: argparse.Namespace) -> int:
    glanced = planning.glance(args.file, args.plugin)
    folder = args.output_dir or Path("results") / (glanced.name if glanced else "")
    runs = planning.kept(glanced, folder) if glanced else None
    if glanced is not None and runs is not None:
        name = glanced.name
    else:
        name, every, folder = _read(args)
        runs = tuple(planning.entry(run) for run in every)
        if folder.is_dir():
            keep_plan(args, name, every, folder)
    if not folder.is_dir():
        print(f"There is no results folder {folder} yet.", file=sys.stderr)
    actions: dict[str, Any] = {
        "list": lambda: status.list_runs(runs, folder, args),
        "status": lambda: status.show(name, runs, folder, args),
        "logs": lambda: status.logs(runs, folder, args),
        "cancel": lambda: launch.cancel(folder),
    }
    return actions[args.action]() or 0


def _read(args: argparse.Namespace) -> "tuple[str, list[Planned], Path]":
    """Name, planned runs and results folder of the sweep."""
    machine.load_plugins(args)
    from domainbed_sage.sweeps.sweep import read_sweep

    sweep = read_sweep(args.file, machine.data_dir(args))
    return sweep.name, sweep.planned(), args.output_dir or Path("results") / sweep.name


def keep_plan(args: argparse.Namespace, name: str, runs: "list[Planned]", folder: Path) -> None:
    """Keep the plan of a sweep in its results folder; actions that only look may fail to write there."""
    sweep = planning.glance(args.file, args.plugin) or planning.SweepFile(args.file, name, "")
    try:
        planning.keep(sweep, runs, folder)
    except UserError:
        if args.action not in (*LOOKING, "plan"):
            raise


def summary(outcome: "Outcome", total: int, folder: Path) -> str:
    """What became of the runs, and what to do next."""
    of_all, verb = counted(total, "run"), "is" if total == 1 else "are"
    lines = [f"{outcome.done + outcome.before} of {of_all} {verb} done ({outcome.done} now) in {folder}."]
    if outcome.failed:
        lines += [f"{len(outcome.failed)} failed:"]
        lines += [f"  {name}\n    {reason}".rstrip() for name, reason in outcome.failed.items()]
        lines += [folded("Fix the cause and start the same command again: only the missing runs are executed.")]
    if outcome.interrupted:
        lines += [folded("Interrupted: active runs saved a checkpoint. Start the same command again to continue.")]
    return "\n".join(lines)


def remove_incomplete(runs: "Runs", folder: Path) -> int:
    """Delete the folders of incomplete runs and return their number, as DomainBed's `delete_incomplete`."""
    begun = [path for run in runs if (path := folder / run.folder_name).is_dir() and not regular(path / "done")]
    for path in begun:
        shutil.rmtree(path)
    return len(begun)


def _run(runs: "Runs", folder: Path, args: argparse.Namespace, keep: Callable[[], None]) -> int:
    from domainbed_sage.sweeps.local import run_missing

    where = machine.from_arguments(args, folder)
    keep()
    return _reported(run_missing(runs, where, args.jobs), runs, folder)


def _launch(name: str, runs: "Runs", folder: Path, args: argparse.Namespace, keep: Callable[[], None]) -> int:
    outcome = launch.launch(name, runs, folder, args, keep)
    return 0 if outcome is None else _reported(outcome, runs, folder)


def _reported(outcome: "Outcome", runs: "Runs", folder: Path) -> int:
    print(summary(outcome, len(runs), folder), file=sys.stderr)
    return 130 if outcome.interrupted else int(bool(outcome.failed))
