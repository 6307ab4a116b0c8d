"""Launch a sweep from flags: DomainBed's `python -m domainbed.scripts.sweep`, on this machine.

A sweep file describes the same and can be kept: see `domainbed-sage sweep run`. Finished runs are left unchanged;
unlike DomainBed's, this `launch` continues incomplete runs from their checkpoints.
"""

import argparse
import sys
from pathlib import Path

from domainbed_sage.algorithms import algorithms
from domainbed_sage.cli import guarded, machine
from domainbed_sage.cli.numbers import whole
from domainbed_sage.cli.parser import Parser
from domainbed_sage.cli.sweep import remove_incomplete, summary
from domainbed_sage.core.hparams import parse_json
from domainbed_sage.core.settings import checked
from domainbed_sage.results.planned import Plan, write
from domainbed_sage.sweeps import planning
from domainbed_sage.sweeps.local import run_missing
from domainbed_sage.sweeps.sweep import Sweep


def main(args: argparse.Namespace) -> int:
    """Launch the sweep, or delete its incomplete runs."""
    where = machine.from_arguments(args, args.output_dir)
    settings = {
        "name": "sweep",
        "datasets": dict.fromkeys(args.datasets),
        "algorithms": dict.fromkeys(args.algorithms or algorithms),
        "model": args.model,
        "test_envs": "single" if args.single_test_envs else "pairs",
        "trials": args.n_trials,
        "n_hparams": args.n_hparams,
        "steps": args.steps,
        "holdout_fraction": args.holdout_fraction,
        "hparams": parse_json(args.hparams),
    }
    sweep = checked(Sweep, settings, "the options")
    planned = [entry for entry in sweep.planned() if entry.config.hparams_seed >= args.n_hparams_from]
    runs = [config for _, config in planned]
    if args.command == "delete_incomplete":
        print(f"Deleted {remove_incomplete(runs, args.output_dir)} incomplete runs.")
        return 0
    if not args.skip_confirmation and input(f"Launch up to {len(runs)} runs? (y/n) ").strip().lower()[:1] != "y":
        return 1
    write(args.output_dir, sweep.name, Plan("", tuple(map(planning.entry, planned))))
    outcome = run_missing(runs, where, args.jobs)
    print(summary(outcome, len(runs), args.output_dir))
    return int(bool(outcome.failed))


if __name__ == "__main__":
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("launch", "delete_incomplete"))
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--algorithms", nargs="+", help="default: all")
    parser.add_argument("--model", help="default: the dataset's model")
    parser.add_argument("--n_hparams_from", type=whole(0), default=0)
    parser.add_argument("--n_hparams", type=int, default=20)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--n_trials", type=int, default=3)
    parser.add_argument("--command_launcher", choices=("local",), default="local", help="where the runs are executed")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--hparams", help="JSON object of hyperparameters for all runs")
    parser.add_argument("--holdout_fraction", type=float, default=0.2)
    parser.add_argument("--single_test_envs", action="store_true", help="hold out single environments only, no pairs")
    parser.add_argument("--skip_confirmation", action="store_true")
    parser.add_argument("--jobs", type=whole(1, machine.MOST_PROCESSES), help="number of parallel runs")
    machine.add_arguments(parser)
    parser.set_defaults(main=main)
    sys.exit(guarded(parser))
