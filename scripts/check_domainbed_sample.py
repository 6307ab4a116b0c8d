"""Check our tables against the sample sweep and the tables that DomainBed publishes.

    python scripts/check_domainbed_sample.py DomainBed/domainbed/misc/test_sweep_data \
        DomainBed/domainbed/misc/test_sweep_results.txt

Prints "equal" and exits with status 0 if every number agrees in every digit; otherwise prints the differences and exits
with status 1.
"""

import argparse
import re
import sys
from pathlib import Path

from domainbed_sage.results import render, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.selection import DOMAINBED

Rows = list[list[str]]


def parse(text: str) -> dict[str, Rows]:
    """Tables by heading, rows as lists of cells, from DomainBed's results file or from our plain text."""
    found: dict[str, Rows] = {}
    for block in re.split(r"\n\s*\n", text):
        heading, *lines = block.strip().splitlines() or [""]
        if heading.startswith("--------"):
            found[heading.strip("- ")] = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return found


def main() -> int:
    """Compare all tables of the published file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", type=Path, help="DomainBed's domainbed/misc/test_sweep_data")
    parser.add_argument("results", type=Path, help="DomainBed's domainbed/misc/test_sweep_results.txt")
    args = parser.parse_args()
    published = parse(args.results.read_text())
    records = load_records(args.sample, include_unfinished=True).records
    ours = parse("\n\n".join(render.text(tables.build(records, method)) for method in DOMAINBED))
    different = [heading for heading in published | ours if published.get(heading) != ours.get(heading)]
    for heading in different:
        print(f"{heading}\n  published: {published.get(heading)}\n  ours:      {ours.get(heading)}")
    if not different:
        print(f"equal: {len(published)} tables from {len(records)} runs")
    return 1 if different or not published else 0


if __name__ == "__main__":
    sys.exit(main())
