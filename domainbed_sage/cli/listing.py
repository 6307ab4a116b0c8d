"""`domainbed-sage list`: what is registered, with hyperparameters."""

import argparse
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any

from domainbed_sage.cli import as_json, machine
from domainbed_sage.cli.terminal import folded
from domainbed_sage.core.errors import UserError, described, known, near, shown

if TYPE_CHECKING:
    from domainbed_sage.core.hparams import HParam, Search


RUN_STEPS = 5001  # DomainBed's; passes are averaged over them where a method's steps differ
KINDS = ("algorithms", "models", "optimizers", "data", "solvers", "task_models")


@dataclass(frozen=True)
class Thing:
    """Something that is registered.

    Attributes:
        kind: one of `KINDS`.
        name: its name.
        made_by: its class or builder, whose keyword-only arguments are its hyperparameters.
        recommended: defaults of the run that it replaces.
        search: random-search ranges that it replaces.
    """

    kind: str
    name: str
    made_by: Callable[..., Any]
    recommended: Mapping[str, Any] = field(default_factory=dict)
    search: "Mapping[str, Search]" = field(default_factory=dict)

    @property
    def description(self) -> str:
        """Its own docstring, not the one of a class that it inherits from."""
        return inspect.cleandoc(self.made_by.__doc__ or "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "what", metavar="WHAT", help=f"{', '.join(KINDS)}; or the name of one algorithm, model or optimizer"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, in full")
    machine.add_plugin_argument(parser)
    as_json.add_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Print names, one line of description, and hyperparameters; all that is known of those that are named.

    Raises:
        UserError: there is no such thing.
    """
    machine.load_plugins(args)
    every = [thing for thing in registered() if args.what not in KINDS or thing.kind == args.what]
    names = args.names if args.what in KINDS else [args.what, *args.names]
    things = [thing for name in names for thing in _named(name, every)] or every
    if args.json:
        as_json.show(map(as_object, things))
    else:
        print("\n".join(line for thing in things for line in (in_full if names else in_short)(thing)))
    return 0


def registered() -> Iterator[Thing]:
    """Everything that the command knows, in order."""
    from domainbed_sage.algorithms import algorithms
    from domainbed_sage.algorithms.solvers import solvers
    from domainbed_sage.data.transforms import DataOptions
    from domainbed_sage.models import models
    from domainbed_sage.models.optimizers import optimizers
    from domainbed_sage.models.task_models import task_models

    yield from (Thing("algorithms", name, cls, cls.recommended) for name, cls in algorithms.items())
    yield from (Thing("models", name, spec.build, spec.recommended, spec.search) for name, spec in models.items())
    yield from (Thing("optimizers", name, make) for name, make in optimizers.items())
    yield Thing("data", "data", DataOptions)
    yield from (Thing("solvers", name, cls) for name, cls in solvers.items())
    yield from (Thing("task_models", name, spec.build) for name, spec in task_models.items())


def _named(name: str, things: Sequence[Thing]) -> list[Thing]:
    found = [thing for thing in things if thing.name == name]
    if not found:
        names = dict.fromkeys(thing.name for thing in things)
        raise UserError(f"There is no {shown(name)} to list.{near(name, [*KINDS, *names])} {known([*names])}.")
    return found


def in_short(thing: Thing) -> Iterator[str]:
    """First line of the description, origin, and a line for each hyperparameter."""
    from domainbed_sage.core.hparams import declared, describe

    yield from _wrapped(f"{thing.name}: {(thing.description or '(no description)').splitlines()[0]}", 0)
    if origin := origin_of(thing.made_by):
        yield from _wrapped("; ".join(origin.values()))
    yield from _own_values(thing)
    for h in declared(thing.made_by).values():
        yield from _wrapped(describe(h))


def in_full(thing: Thing) -> Iterator[str]:
    """The description up to its arguments, origin, and each hyperparameter with its meaning."""
    from domainbed_sage.core.hparams import declared, describe

    yield f"{thing.name} ({thing.kind.removesuffix('s')})"
    summary = re.split(r"\n(?=(?:Args|Attributes|Raises|Returns):)", thing.description)[0]
    for paragraph in re.split(r"\n\s*\n", summary.strip() or "(no description)"):
        yield from _wrapped(paragraph)
    yield from (line for fact in origin_of(thing.made_by).values() for line in _wrapped(fact))
    yield from _own_values(thing)
    meanings = meanings_of(thing.description)
    for h in declared(thing.made_by).values():
        yield from _wrapped(describe(h))
        if h.name in meanings:
            yield from _wrapped(meanings[h.name], 8)


def meanings_of(description: str) -> dict[str, str]:
    """What the sections of a docstring say about each argument or attribute, by name."""
    found = re.findall(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", description, re.MULTILINE)
    return {name: text for names, text in found for name in names.split(", ")}


def _own_values(thing: Thing) -> Iterator[str]:
    """Lines on the run's defaults and ranges that a thing replaces."""
    if thing.recommended:
        yield from _wrapped("its own defaults: " + ", ".join(f"{k} {v!r}" for k, v in thing.recommended.items()))
    if thing.search:
        yield from _wrapped("its own random search: " + "; ".join(f"{k} {v}" for k, v in thing.search.items()))


def _wrapped(text: str, indent: int = 4) -> Iterator[str]:
    """The text as wide as the terminal, line breaks of its own aside; as part of a generator's lines."""
    yield folded(" ".join(text.split()), " " * indent)


def as_object(thing: Thing) -> dict[str, Any]:
    """The entry of one thing in `list --json`: its full description and its hyperparameters."""
    from domainbed_sage.core.hparams import declared

    return {
        "name": thing.name,
        "kind": thing.kind,
        "description": thing.description,
        **origin_of(thing.made_by),
        "recommended": thing.recommended,
        "search": {name: _search(search) for name, search in thing.search.items()},
        "hyperparameters": [_hyperparameter(h) for h in declared(thing.made_by).values()],
    }


def origin_of(thing: Callable[..., Any]) -> dict[str, str]:
    """For an algorithm: its paper, its cost in passes over the minibatch, and whether it is experimental."""
    from domainbed_sage.algorithms import Algorithm
    from domainbed_sage.core.hparams import declared

    if not (inspect.isclass(thing) and issubclass(thing, Algorithm)):
        return {}
    passes = thing.passes(RUN_STEPS, {name: h.default for name, h in declared(thing).items()}) / RUN_STEPS
    found = {"paper": thing.paper or "(no paper)", "passes": f"passes per step: {passes:.3g}"}
    return found | ({"status": "experimental: no code of its authors to compare with"} if thing.experimental else {})


def _search(search: "Search") -> dict[str, Any]:
    """A random-search range; its kind is the name of its class."""
    return {"kind": type(search).__name__} | (asdict(search) if is_dataclass(search) else {})


def _hyperparameter(h: "HParam") -> dict[str, Any]:
    """Name, default, what is allowed as a JSON schema, and the search range."""
    from pydantic import TypeAdapter
    from pydantic_core import to_jsonable_python

    try:
        schema, default = TypeAdapter(h.annotation).json_schema(), to_jsonable_python(h.default)
    except Exception as error:  # the types of a plugin can be anything
        reason = described(error).splitlines()[0].rstrip(".")
        raise UserError(f"Hyperparameter {h.name!r} cannot be described in JSON: {reason}.") from error
    return {"name": h.name, "default": default, "schema": schema, "search": h.search and _search(h.search)}
