"""`domainbed-sage list`: what is registered, with hyperparameters."""

import argparse
import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from domainbed_sage.cli import as_json, machine
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.errors import UserError, described

if TYPE_CHECKING:
    from domainbed_sage.core.hparams import HParam


RUN_STEPS = 5001  # DomainBed's; passes are averaged over them where a method's steps differ


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("what", choices=("algorithms", "models", "optimizers", "data"))
    machine.add_plugin_argument(parser)
    as_json.add_argument(parser)


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
    if args.json:
        as_json.show(as_object(name, thing) for name, thing in tables[args.what].items())
        return 0
    for name, thing in tables[args.what].items():
        print(folded(f"{name}: {(inspect.getdoc(thing) or '(no description)').splitlines()[0]}"))
        if origin := origin_of(thing):
            print(folded("; ".join(origin.values()), "    "))
        for h in declared(thing).values():
            print(folded(describe(h), "    "))
    return 0


def as_object(name: str, thing: Callable[..., Any]) -> dict[str, Any]:
    """The entry of one thing in `list --json`: its full description and its hyperparameters."""
    from domainbed_sage.core.hparams import declared

    hyperparameters = [_hyperparameter(h) for h in declared(thing).values()]
    described = {"name": name, "description": inspect.getdoc(thing) or "", **origin_of(thing)}
    return described | {"hyperparameters": hyperparameters}


def origin_of(thing: Callable[..., Any]) -> dict[str, str]:
    """For an algorithm: its paper, its cost in passes over the minibatch, and whether it is experimental."""
    from domainbed_sage.algorithms import Algorithm
    from domainbed_sage.core.hparams import declared

    if not (inspect.isclass(thing) and issubclass(thing, Algorithm)):
        return {}
    passes = thing.passes(RUN_STEPS, {name: h.default for name, h in declared(thing).items()}) / RUN_STEPS
    found = {"paper": thing.paper or "(no paper)", "passes": f"passes per step: {passes:.3g}"}
    return found | ({"status": "experimental: no code of its authors to compare with"} if thing.experimental else {})


def _hyperparameter(h: "HParam") -> dict[str, Any]:
    """Name, default, what is allowed as a JSON schema, and the search range; its kind is the name of its class."""
    from pydantic import TypeAdapter
    from pydantic_core import to_jsonable_python

    search = h.search and {"kind": type(h.search).__name__} | (asdict(h.search) if is_dataclass(h.search) else {})
    try:
        schema, default = TypeAdapter(h.annotation).json_schema(), to_jsonable_python(h.default)
    except Exception as error:  # the types of a plugin can be anything
        reason = described(error).splitlines()[0].rstrip(".")
        raise UserError(f"Hyperparameter {h.name!r} cannot be described in JSON: {reason}.") from error
    return {"name": h.name, "default": default, "schema": schema, "search": search}
