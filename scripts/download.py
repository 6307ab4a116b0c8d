"""Download the five benchmarks: DomainBed's `python -m domainbed.scripts.download`.

The same as `domainbed-sage data download NAME` for each dataset; existing ones are left unchanged.
"""

import argparse
import sys
from pathlib import Path

from domainbed_sage.cli import guarded
from domainbed_sage.cli.data import summary
from domainbed_sage.cli.parser import Parser
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire.obtain import obtain
from domainbed_sage.data.specs import find

BENCHMARKS = ("VLCS", "PACS", "OfficeHome", "TerraIncognita", "DomainNet")


def main(args: argparse.Namespace) -> int:
    """Download the missing datasets; if one fails, the others are still downloaded."""
    failed = []
    for spec in map(find, args.datasets):
        place = args.data_dir / spec.folder
        try:
            dataset = spec.load(args.data_dir) if place.exists() else obtain(spec, args.data_dir, spec.sources)
            print(summary(dataset, place))
        except UserError as error:
            failed.append(str(error))
    if failed:
        raise UserError("\n".join(failed))
    return 0


if __name__ == "__main__":
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="default: all five")
    parser.set_defaults(main=main)
    sys.exit(guarded(parser))
