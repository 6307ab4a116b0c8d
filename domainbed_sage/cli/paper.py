"""`domainbed-sage paper`: the claims of the SAGE paper, computed again."""

import argparse
from importlib import import_module
from pathlib import Path

from domainbed_sage.cli.numbers import whole

PARTS = (  # name, module with `run`, help
    (
        "audit",
        "domainbed_sage.paper.audit",
        "every derived number of the printed tables, and contradictions of the text",
    ),
    ("theory", "domainbed_sage.paper.theory", "Theorem 1, Counterexample 1, Remark 1 and Appendix C, by computation"),
    ("figures", "domainbed_sage.paper.figures", "Figures 1 to 5, computed anew"),
    ("cost", "domainbed_sage.paper.cost", "FLOPs and time of a step beside the claims of Appendix G"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `paper` and of its parts."""
    parts = parser.add_subparsers(required=True, metavar="PART")
    for name, module, text in PARTS:
        part = parts.add_parser(name, help=text, description=text)
        part.add_argument(
            "--output_dir", type=Path, default=Path("results/paper_check"), help="folder for what it makes"
        )
        part.add_argument("--seed", type=whole(0), default=0, help="of all random numbers")
        part.add_argument("--quick", action="store_true", help="fewer repetitions, for a first look")
        part.add_argument("--json", action="store_true", help="print the findings as JSON")
        part.set_defaults(module=module)


def main(args: argparse.Namespace) -> int:
    """Run one part, print its findings, and say where its files are.

    Raises:
        UserError: the folder cannot be written.
    """
    return int(import_module(args.module).run(args.output_dir, seed=args.seed, quick=args.quick, as_json=args.json))
