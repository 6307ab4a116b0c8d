"""`domainbed-sage list`: what there is, and its hyperparameters."""

import argparse
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from domainbed_sage.cli import machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("what", choices=("algorithms", "models", "optimizers", "data"))
    machine.add_plugin_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Print names, one line of description, and hyperparameters."""
    machine.load_plugins(args)
    from domainbed_sage.algorithms import algorithms
    from domainbed_sage.core.hparams import declared, describe
    from domainbed_sage.data.transforms import DataOptions
    from domainbed_sage.models import models
    from domainbed_sage.models.optimizers import optimizers

    tables: dict[str, Mapping[str, Callable[..., Any]]] = {
        "algorithms": algorithms,
        "models": {name: spec.build for name, spec in models.items()},
        "optimizers": optimizers,
        "data": {"data": DataOptions},
    }
    for name, thing in tables[args.what].items():
        print(f"{name}: {(inspect.getdoc(thing) or '(no description)').splitlines()[0]}")
        for h in declared(thing).values():
            print(f"    {describe(h)}")
    return 0
