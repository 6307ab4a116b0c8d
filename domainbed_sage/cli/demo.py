"""`domainbed-sage demo`: a demo sweep of either half of the suite, its tables, and where they are."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from domainbed_sage.cli import sweep
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.resources import shipped


@dataclass(frozen=True)
class Demo:
    """A sweep that ends in minutes.

    Attributes:
        preset: the sweep file.
        text: what it runs on, after "… runs: <algorithms> on".
        shown: prints its tables, given the arguments and the results folder; returns what else is in the folder, as
            name and explanation, and whether something there is unreadable.
    """

    preset: str
    text: str
    shown: Callable[[argparse.Namespace, Path], tuple[dict[str, str], bool]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `demo`."""
    parser.add_argument(
        "half",
        nargs="?",
        choices=list(DEMOS),
        default="domains",
        help="domains: leave one domain out (default); multitask: several tasks on synthetic rooms",
    )
    parser.add_argument("--output_dir", type=Path, help="results folder; by default results/<name of the sweep>")
    sweep.add_run_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run a demo sweep, print its table, and say where everything is.

    Raises:
        UserError: see `sweep`.
    """
    from domainbed_sage.sweeps.sweep import read_sweep

    began, demo = time.monotonic(), DEMOS[args.half]
    args.action, args.file = "run", shipped(demo.preset)
    read = read_sweep(args.file)
    folder = args.output_dir or Path("results") / read.name
    print(folded(f"{len(read.runs())} runs: {', '.join(read.algorithms)} on {demo.text}."))
    if failed := sweep.main(args):
        return failed
    files, faults = demo.shown(args, folder)
    print(f"\nThe demo took {(time.monotonic() - began) / 60:.1f} minutes. In {folder} there are:")
    width = max(map(len, files)) + 3
    for name, text in files.items():
        print(f"  {name.ljust(width)}{text}")
    return int(faults)


def _domains(args: argparse.Namespace, folder: Path) -> tuple[dict[str, str], bool]:
    from domainbed_sage.cli import report, table

    del args
    _, faults = table.show([folder], table.Wanted(formats=table.FORMATS[:1]))
    report.write([folder], folder / report.PAGE)
    files = {
        "table.md, table.tex, table.csv": "the table",
        "table.png": "its picture",
        "curves.png": "training curves",
        "<run>/results.jsonl": "the records, in DomainBed's format",
        "report.html, report.json": "all of it on one page, to open in a browser, and its numbers",
    }
    return files, bool(faults)


def _tasks(args: argparse.Namespace, folder: Path) -> tuple[dict[str, str], bool]:
    from domainbed_sage.cli import machine, predictions, table, task_table

    _, faults = task_table.show([folder], table.Wanted(formats=table.FORMATS[:1]))
    predictions.write(folder, machine.place_from_arguments(args, folder))
    files = {
        "tasks.md, tasks.csv": "the table",
        "tasks.png": "its picture",
        "predictions.png": "what each method predicts, beside the truth",
        "<run>/results.jsonl": "the records",
    }
    return files, bool(faults)


DEMOS = {
    "domains": Demo("sweeps/demo.yaml", "EmojiStyles, each style held out in turn", _domains),
    "multitask": Demo("sweeps/demo_multitask.yaml", "Rooms, synthetic scenes with three tasks", _tasks),
}
