"""The command `domainbed-sage` and its subcommands, one file each.

Commands start fast: only the chosen subcommand is imported, and slow libraries (PyTorch, pandas, matplotlib) only by
the function that needs them. `tests/cli/test_startup.py` checks which commands do without them.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType

import domainbed_sage
from domainbed_sage.cli.parser import Parser
from domainbed_sage.cli.terminal import Terminal
from domainbed_sage.core import files
from domainbed_sage.core.errors import UserError

INTERRUPTED = 130
COMMANDS = (  # name, module in this package with `add_arguments` and `main`, help
    ("demo", "demo", "a leave-one-domain-out sweep on real images, in minutes"),
    ("train", "train", "train one run, with DomainBed's flags"),
    ("evaluate", "evaluate", "the model of a finished run: accuracies, confusions, predictions"),
    ("predictions", "predictions", "pictures of what the networks of several tasks predict"),
    ("sweep", "sweep", "run, launch and watch the runs of a sweep file"),
    ("table", "table", "turn results into tables"),
    ("compare", "compare", "how certain is the difference between two methods: intervals, and a sentence for a paper"),
    ("report", "report", "one HTML page about results, with intervals, curves and all runs"),
    ("cite", "cite", "BibTeX of the suite, and of the algorithms and datasets of results"),
    ("pack", "pack", "put the records of a results folder into one file"),
    ("data", "data", "list, download, check and prepare datasets"),
    ("weights", "weights", "download and check pretrained weights"),
    ("list", "listing", "show algorithms, models, optimizers and their hyperparameters"),
    ("verify", "verify", "replay recorded trajectories"),
    ("paper", "paper", "the paper's tables, theorem, figures and costs, computed again, each with a verdict"),
    ("completion", "completion", "print a completion script for your shell"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status: 0 done, 1 failed, 2 usage error, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if not word.startswith("-")), "")
    return guarded(make_parser([chosen]), words)


def make_parser(chosen: Sequence[str]) -> argparse.ArgumentParser:
    """Build the command's parser; it knows all subcommands, and the options of the chosen ones."""
    parser = Parser("domainbed-sage", description="A benchmark suite for domain generalization around SAGE.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {domainbed_sage.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module, help_text in COMMANDS:
        command = commands.add_parser(name, help=help_text, description=help_text)
        if name in chosen:
            _declare(import_module(f"{__name__}.{module}"), command)
    return parser


def guarded(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, call ``args.main(args)``, and turn the user's errors into messages without a stack trace."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show θ or █ shows ? instead
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[Terminal()])
    args = parser.parse_args(argv)
    try:
        status = int(args.main(args))
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, e.g. `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        reason = files.refusal(error)
        if error.errno in files.FULL and not error.filename:  # all other writing is `explained`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            reason = f"Cannot write the output: {error.strerror}."
        if not reason:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def script(module: ModuleType, description: str) -> None:
    """Entry point of a thin script in `scripts/` around one subcommand."""
    parser = Parser(description=description)
    _declare(module, parser)
    sys.exit(guarded(parser))


def _declare(module: ModuleType, parser: argparse.ArgumentParser) -> None:
    module.add_arguments(parser)
    parser.set_defaults(main=module.main)
