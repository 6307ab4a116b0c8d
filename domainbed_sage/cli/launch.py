"""`domainbed-sage sweep launch`, `retry` and `cancel`."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.cli import machine
from domainbed_sage.core.files import regular
from domainbed_sage.sweeps.cluster import ledger, site, slurm

if TYPE_CHECKING:
    from domainbed_sage.config import RunConfig
    from domainbed_sage.sweeps.local import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `launch`."""
    parser.add_argument(
        "--cluster",
        choices=("slurm", "local", "debug"),
        default="slurm",
        help="slurm: arrays of jobs; local: this machine's GPUs, --runs-per-gpu processes on each; "
        "debug: one run after the other in this process (default: %(default)s)",
    )
    machine.add_arguments(parser)
    site.add_arguments(parser)


def add_retry_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `retry`."""
    parser.add_argument("--failed", action="store_true", required=True, help="runs that failed with a reason, too")
    machine.add_arguments(parser)
    site.add_arguments(parser)


def launch(
    name: str, runs: "Sequence[RunConfig]", folder: Path, args: argparse.Namespace, keep: Callable[[], None]
) -> "Outcome | None":
    """Start the missing runs; return the outcome, unless they were only submitted.

    Args:
        name: of the sweep.
        runs: all of its runs.
        folder: its results folder.
        args: the command line.
        keep: keeps the plan in that folder, once the options are known to be right.

    Raises:
        UserError: see `submit.launch`.
    """
    if args.cluster == "slurm":
        _submit(name, runs, folder, args, keep, failed_too=False)
        return None
    from domainbed_sage.sweeps.local import Outcome, run_missing
    from domainbed_sage.training import train

    settings = site.from_arguments(args)
    where = replace(machine.from_arguments(args, folder), save_every_s=settings.save_every_s)
    settings.require_space(folder, "Launching")
    keep()
    if args.cluster == "debug":
        before = sum(regular(folder / run.folder_name / "done") for run in runs)
        for run in runs:
            print(run.folder_name)
            train.run(run, replace(where, output_dir=folder / run.folder_name, progress=True))
        return Outcome(len(runs) - before, before, {})
    return run_missing(runs, where, per_gpu=settings.runs_per_gpu)


def retry(
    name: str, runs: "Sequence[RunConfig]", folder: Path, args: argparse.Namespace, keep: Callable[[], None]
) -> None:
    """Submit missing and failed runs; arguments as in `launch`.

    Raises:
        UserError: see `submit.launch`.
    """
    _submit(name, runs, folder, args, keep, failed_too=True)


def cancel(folder: Path) -> None:
    """Cancel all jobs of a results folder.

    Raises:
        UserError: Slurm does not answer.
    """
    with ledger.locked(folder):
        queue = slurm.queue(array.name for array in ledger.read(folder))
        slurm.cancel(sorted(queue))
    running = sum(job.running for job in queue.values())
    print(f"Cancelled {len(queue)} jobs, {running} of them running. `sweep launch` continues from their checkpoints.")


def _submit(
    name: str,
    runs: "Sequence[RunConfig]",
    folder: Path,
    args: argparse.Namespace,
    keep: Callable[[], None],
    *,
    failed_too: bool,
) -> None:
    from domainbed_sage.sweeps.cluster import submit

    settings = site.from_arguments(args)
    where = replace(
        machine.from_arguments(args, folder), save_every_s=settings.save_every_s, look_every_s=settings.look_every_s
    )
    if where.data_dir is not None:
        where = replace(where, data_dir=where.data_dir.resolve())
    given = args.device is not None
    submit.check_device(settings, device_given=given)
    keep()
    print(submit.launch(name, runs, where, settings, device_given=given, failed_too=failed_too))
    print(f"See `domainbed-sage sweep status {args.given}`.")
