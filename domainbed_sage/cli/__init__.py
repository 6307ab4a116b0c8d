"""The command `domainbed-sage` and its subcommands, one file each."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import domainbed_sage
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.plugins import load_installed

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status: 0 done, 1 failed, 2 a mistake of the user, 130 interrupted."""
    from domainbed_sage.cli import (
        data,
        listing,
        sweep,
        table,
        train,
        verify,
        weights,
    )  # after the parser's own mistakes

    parser = argparse.ArgumentParser("domainbed-sage", description=domainbed_sage.__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {domainbed_sage.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, help_text, module in (
        ("demo", "a leave-one-domain-out sweep on real images, in minutes", sweep.Demo),
        ("train", "train one run, with DomainBed's flags", train),
        ("sweep", "run a sweep file", sweep),
        ("table", "turn results into tables", table),
        ("data", "list and prepare datasets", data),
        ("weights", "fetch and check pretrained weights", weights),
        ("list", "show algorithms, models, optimizers and their hyperparameters", listing),
        ("verify", "replay recorded trajectories", verify),
    ):
        command = commands.add_parser(name, help=help_text, description=help_text)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return guarded(parser, argv)


def guarded(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, call ``args.main(args)``, and turn the user's mistakes into messages without a stack trace."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    args = parser.parse_args(argv)
    try:
        load_installed()
        status = int(args.main(args))
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def script(module: object, description: str) -> None:
    """Entry of a thin script in `scripts/` around one subcommand."""
    parser = argparse.ArgumentParser(description=description)
    module.add_arguments(parser)  # type: ignore[attr-defined]
    parser.set_defaults(main=module.main)  # type: ignore[attr-defined]
    sys.exit(guarded(parser))
