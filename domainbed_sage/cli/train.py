"""`domainbed-sage train`: one run, with DomainBed's flags."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from domainbed_sage.cli import machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare DomainBed's flags, and ours."""
    parser.add_argument(
        "--dataset", default="EmojiStyles", help="see `domainbed-sage data list`; folder:PATH: your images"
    )
    parser.add_argument("--algorithm", default="ERM", help="see `domainbed-sage list algorithms`")
    parser.add_argument("--model", help="see `domainbed-sage list models`; by default the dataset's")
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--hparams", help="JSON object of hyperparameters, e.g. '{\"lr\": 1e-5}'")
    parser.add_argument("--hparams_seed", type=int, default=0, help="0 = default hyperparameters, else random ones")
    parser.add_argument("--trial_seed", type=int, default=0, help="seeds the in/out split and random hyperparameters")
    parser.add_argument("--seed", type=int, default=0, help="seeds everything else")
    parser.add_argument("--steps", type=int, help="number of steps; by default the dataset's")
    parser.add_argument("--checkpoint_freq", type=int, help="steps between evaluations; by default the dataset's")
    parser.add_argument("--test_envs", nargs="+", help="held-out environments, by index or name; by default 0")
    parser.add_argument("--holdout_fraction", type=float, default=0.2, help="share of the out splits")
    parser.add_argument("--precision", default="fp32", help="fp32, tf32, bf16, bf16x3 or bf16x6 (default: %(default)s)")
    parser.add_argument(
        "--eval",
        choices=("lazy", "full"),
        default="lazy",
        dest="evaluation",
        help="what to evaluate: what model selection reads, or every split of every environment as DomainBed does",
    )
    parser.add_argument("--output_dir", type=Path, default=Path("train_output"))
    machine.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Train, or continue, one run.

    Raises:
        UserError: see `make_config` and `train.run`.
    """
    from domainbed_sage.config import make_config
    from domainbed_sage.core.hparams import parse_json
    from domainbed_sage.data import own
    from domainbed_sage.training import train

    where = machine.from_arguments(args, args.output_dir, progress=True)
    names = (
        *("dataset", "algorithm", "model", "optimizer", "hparams_seed", "trial_seed", "seed", "steps"),
        *("checkpoint_freq", "test_envs", "holdout_fraction", "precision", "evaluation"),
    )
    if args.dataset.startswith(own.SCHEME) and args.model is None:
        print(own.no_model(args.dataset, "--model NAME"), file=sys.stderr)
    config = make_config(hparams=parse_json(args.hparams), **{name: getattr(args, name) for name in names})
    stop = threading.Event()
    handlers = {signum: signal.signal(signum, lambda *_: stop.set()) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        train.run(config, where, stop)
    except train.Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 130
    finally:  # after its run, signals end the process again
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    print(f"Done: {args.output_dir / 'results.jsonl'}")
    return 0
