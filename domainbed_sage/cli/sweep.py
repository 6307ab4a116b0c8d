"""`domainbed-sage sweep` and `domainbed-sage demo`: from a sweep file to results."""

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from domainbed_sage.cli import launch, machine, plan, status, table
from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import write_atomically
from domainbed_sage.core.resources import shipped
from domainbed_sage.models import models
from domainbed_sage.sweeps.local import Outcome, run_missing
from domainbed_sage.sweeps.sweep import Sweep, read_sweep

PLAN = "plan.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `sweep` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, declare in (
        ("list", "every run, and whether it is done", None),
        ("plan", "runs, images, passes, hours", plan.add_arguments),
        ("run", "execute the missing runs on this machine", _add_run_arguments),
        ("launch", "submit the missing runs to a cluster", launch.add_arguments),
        ("status", "where the sweep stands", status.add_arguments),
        ("cancel", "take its jobs out of the queue", None),
        ("retry", "submit failed runs again", launch.add_retry_arguments),
        ("logs", "what a run has written", status.add_log_arguments),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("file", type=Path, help="sweep file, e.g. sweeps/demo.yaml")
        action.add_argument("--output_dir", type=Path, help="results folder; by default results/<name of the sweep>")
        if name not in ("run", "launch", "retry"):
            action.add_argument("--plugin", type=Path, action="append", default=[], help=argparse.SUPPRESS)
        if declare is not None:
            declare(action)


def main(args: argparse.Namespace) -> int:
    """Do what was asked.

    Raises:
        UserError: mistakes in the file, or what the action finds.
    """
    machine.load_plugins(args)
    sweep = read_sweep(args.file)
    folder = args.output_dir or Path("results") / sweep.name
    runs = sweep.runs()
    if not runs:
        raise UserError("The sweep has no runs: its datasets or algorithms are empty.")
    actions: dict[str, Any] = {
        "list": lambda: _list(runs, folder),
        "plan": lambda: plan.show(runs, args),
        "run": lambda: _run(runs, folder, args),
        "launch": lambda: _launch(sweep, runs, folder, args),
        "retry": lambda: _retry(sweep, runs, folder, args),
        "status": lambda: status.show(sweep.name, runs, folder, args),
        "cancel": lambda: launch.cancel(folder),
        "logs": lambda: status.logs(runs, folder, args),
    }
    return actions[args.action]() or 0


class Demo:
    """`domainbed-sage demo`: the demo sweep, its tables, and where they are."""

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the options of `demo`."""
        parser.add_argument("--output_dir", type=Path, help="results folder; by default results/demo")
        _add_run_arguments(parser)

    @staticmethod
    def main(args: argparse.Namespace) -> int:
        """Run the demo sweep and print its table.

        Raises:
            UserError: see `sweep`.
        """
        began = time.monotonic()
        args.action, args.file = "run", shipped("sweeps/demo.yaml")
        sweep = read_sweep(args.file)
        folder = args.output_dir or Path("results") / sweep.name
        print(f"{len(sweep.runs())} runs: {', '.join(sweep.algorithms)} on EmojiStyles, each style held out in turn.")
        failed = main(args)
        if not failed:
            table.show(folder)
            print(f"\nThe demo took {(time.monotonic() - began) / 60:.1f} minutes. In {folder} there are:")
            print("  table.md, table.tex, table.csv   the table")
            print("  table.png                        its picture")
            print("  curves.png                       training curves")
            print("  <run>/results.jsonl              the records, in DomainBed's format")
        return failed


def require_weights(runs: list[RunConfig]) -> None:
    """Make sure, before anything starts, that the weight files of all runs are here.

    Raises:
        UserError: one is missing; says which command gets it.
    """
    checked: list[tuple[str, dict[str, Any]]] = []
    for run in runs:
        model = (run.model, run.of(models[run.model].build))
        if model not in checked:
            models[run.model].require(model[1])
            checked.append(model)


def write_plan(runs: list[RunConfig], folder: Path) -> None:
    """Note in the results folder which results the sweep plans, so that `table` can name the missing ones."""
    keys = [[r.dataset, r.algorithm, list(r.test_envs), r.trial_seed] for r in runs]
    write_atomically(folder / PLAN, json.dumps(keys))


def summary(outcome: Outcome, total: int, folder: Path) -> str:
    """What became of the runs, and what to do next."""
    lines = [f"{outcome.done + outcome.before} of {total} runs are done ({outcome.done} now) in {folder}."]
    if outcome.failed:
        lines += [f"{len(outcome.failed)} failed:"]
        lines += [f"  {name}\n    {reason}".rstrip() for name, reason in outcome.failed.items()]
        lines += ["Mend the cause and start the same command again: only the missing runs are executed."]
    if outcome.interrupted:
        lines += ["Interrupted: active runs saved a checkpoint. Start the same command again to continue."]
    return "\n".join(lines)


def remove_incomplete(runs: list[RunConfig], folder: Path) -> int:
    """Delete the folders of runs that began and did not end; their number. DomainBed's `delete_incomplete`."""
    begun = [path for run in runs if (path := folder / run.folder_name).is_dir() and not (path / "done").exists()]
    for path in begun:
        shutil.rmtree(path)
    return len(begun)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs", type=int, help="runs at the same time; by default one per GPU, or one per two cores and at least two"
    )
    machine.add_arguments(parser)


def _run(runs: list[RunConfig], folder: Path, args: argparse.Namespace) -> int:
    where = machine.from_arguments(args, folder)
    require_weights(runs)
    write_plan(runs, folder)
    outcome = run_missing(runs, where, args.jobs)
    print(summary(outcome, len(runs), folder), file=sys.stderr)
    return 130 if outcome.interrupted else int(bool(outcome.failed))


def _launch(sweep: Sweep, runs: list[RunConfig], folder: Path, args: argparse.Namespace) -> int:
    require_weights(runs)
    write_plan(runs, folder)
    outcome = launch.launch(sweep.name, runs, folder, args)
    if outcome is None:
        return 0
    print(summary(outcome, len(runs), folder), file=sys.stderr)
    return 130 if outcome.interrupted else int(bool(outcome.failed))


def _retry(sweep: Sweep, runs: list[RunConfig], folder: Path, args: argparse.Namespace) -> None:
    require_weights(runs)
    write_plan(runs, folder)
    launch.retry(sweep.name, runs, folder, args)


def _list(runs: list[RunConfig], folder: Path) -> None:
    states = Counter[str]()
    width = max(len(run.folder_name) for run in runs)
    for run in runs:
        state = "done" if (folder / run.folder_name / "done").exists() else "missing"
        states[state] += 1
        print(f"{run.folder_name:<{width}}  {state}")
    print(f"{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in states.items()))
