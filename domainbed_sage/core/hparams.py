"""Hyperparameters, read from the keyword arguments of what they configure: there is no separate list.

A hyperparameter is a keyword-only argument with a type and a default. Its bounds are part of the type, as pydantic's
`Field`, and so is its random-search range, as one of the `Search` classes below::

    def __init__(self, problem: Problem, *, rho: Annotated[float, Field(ge=0), Choice(0.01, 0.02, 0.05)] = 0.05)
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import Mistake, UserError, bullets, described, near, shown
from domainbed_sage.core.seeding import seed_hash

_KINDS = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text"}

if TYPE_CHECKING:
    import numpy as np


class Search(Protocol):
    """A random-search range; ``str`` of it is how people write it."""

    def draw(self, r: "np.random.RandomState") -> Any:
        """Draw one value."""


@dataclass(frozen=True)
class Power:
    """base^U(low, high), DomainBed's usual range; `integer` truncates."""

    base: float
    low: float
    high: float
    integer: bool = False

    def draw(self, r: "np.random.RandomState") -> float | int:
        """See `Search.draw`."""
        value = self.base ** r.uniform(self.low, self.high)
        return int(value) if self.integer else float(value)

    def __str__(self) -> str:
        return f"{_written(self.base)}^{Uniform(self.low, self.high, self.integer)}"


@dataclass(frozen=True)
class Uniform:
    """U(low, high); `integer` truncates."""

    low: float
    high: float
    integer: bool = False

    def draw(self, r: "np.random.RandomState") -> float | int:
        """See `Search.draw`."""
        value = r.uniform(self.low, self.high)
        return int(value) if self.integer else float(value)

    def __str__(self) -> str:
        return f"U({_written(self.low)}, {_written(self.high)}){', whole' if self.integer else ''}"


@dataclass(frozen=True)
class Choice:
    """One of the values, all equally likely."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def draw(self, r: "np.random.RandomState") -> Any:
        """See `Search.draw`."""
        return self.values[r.randint(len(self.values))]

    def __str__(self) -> str:
        return f"one of {', '.join(map(_written, self.values))}"


def _written(value: Any) -> str:
    """A value as YAML writes it: numbers as short as they can be, texts in quotes."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    short = f"{value:g}" if isinstance(value, int | float) else ""
    return short if short and float(short) == value else repr(value)


def check_ranges(search: Mapping[str, Any], of: str) -> None:
    """Make sure that these are random-search ranges.

    Raises:
        UserError: one cannot be drawn from.
    """
    for name, found in search.items():
        if not hasattr(found, "draw"):
            raise UserError(
                f"The random-search range of {name!r} of {of} should be a Power, Uniform or Choice, or have a draw() "
                f"of its own. Found {shown(found)}."
            )


@dataclass(frozen=True)
class DrawnAs:
    """The name that seeds a hyperparameter's draws, where it is another one in DomainBed; stands beside the range."""

    name: str


@dataclass(frozen=True, eq=False)
class HParam:
    """One hyperparameter. Equal only to itself.

    Attributes:
        name: its name.
        annotation: its annotated type.
        default: its default.
        search: its random-search range, if it has one.
        drawn_as: the name that seeds its draws.
    """

    name: str
    annotation: Any
    default: Any
    search: Search | None
    drawn_as: str


@functools.cache
def declared(*configurables: Callable[..., Any]) -> Mapping[str, HParam]:
    """Hyperparameters of several things together, in order of declaration.

    Raises:
        UserError: two of them declare the same name, one has no type or no default, or its type means nothing.
    """
    found: dict[str, HParam] = {}
    for thing in configurables:
        function = thing.__init__ if inspect.isclass(thing) else thing
        try:
            hints = typing.get_type_hints(function, include_extras=True)
            parameters = inspect.signature(function).parameters
        except Exception as error:  # the types of a plugin can be anything
            raise UserError(f"The hyperparameters of {thing.__name__} cannot be read: {described(error)}.") from error
        for name, parameter in parameters.items():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                continue
            if name not in hints or parameter.default is inspect.Parameter.empty:
                raise UserError(f"Hyperparameter {name!r} of {thing.__name__} should have a type and a default.")
            if name in found:
                raise UserError(f"Hyperparameter {name!r} is declared twice, the second time by {thing.__name__}.")
            extras = getattr(hints[name], "__metadata__", ())
            search = next((e for e in extras if hasattr(e, "draw")), None)
            drawn_as = next((e.name for e in extras if isinstance(e, DrawnAs)), name)
            found[name] = HParam(name, hints[name], parameter.default, search, drawn_as)
    return MappingProxyType(found)


def resolve(
    hparams: Mapping[str, HParam],
    given: Mapping[str, Any],
    *,
    recommended: Mapping[str, Any] | None = None,
    search: Mapping[str, Search] | None = None,
    hparams_seed: int = 0,
    trial_seed: int = 0,
) -> dict[str, Any]:
    """Values of all hyperparameters of a run.

    With ``hparams_seed`` 0 these are the defaults; otherwise each one that has a search range is drawn from it, with
    a generator of its own as in DomainBed (``seed_hash(seed_hash(hparams_seed, trial_seed), name)``). Values `given`
    explicitly always win; `recommended` (by the model) replaces defaults, and `search` (the ranges that suit the
    dataset and the model) replaces ranges.

    Raises:
        UserError: unknown names, wrong types, impossible values: all of them in one message.
    """
    values = {name: h.default for name, h in hparams.items()} | {
        name: value for name, value in (recommended or {}).items() if name in hparams
    }
    if hparams_seed:
        seed = seed_hash(hparams_seed, trial_seed)
        own = search or {}
        for name, h in hparams.items():
            if name in own:
                values[name] = _draw(own[name], seed_hash(seed, h.drawn_as))
            elif h.search is not None:
                values[name] = _draw_declared(h, seed_hash(seed, h.drawn_as))
    return validate(hparams, values | dict(given))


@functools.lru_cache(maxsize=100_000)  # the runs of a sweep that differ in algorithm or environment draw alike
def _draw_declared(h: HParam, seed: int) -> Any:
    return _draw(h.search, seed) if h.search is not None else h.default


def _draw(search: Search, seed: int) -> Any:
    generator = _generator()
    generator.seed(seed)  # as a new RandomState with this seed, in a tenth of the time
    return search.draw(generator)


@functools.cache
def _generator() -> "np.random.RandomState":
    import numpy as np  # slow to import, and not needed for a command's help

    return np.random.RandomState()


def validate(hparams: Mapping[str, HParam], values: Mapping[str, Any]) -> dict[str, Any]:
    """Check names, types and bounds of hyperparameters and return them with their declared types.

    Raises:
        UserError: lists every mistake with what is allowed.
    """
    try:
        return _model(tuple(hparams.values()))(**values).model_dump()
    except ValidationError as error:
        lines = [Mistake(_explain(hparams, name, e), name) for e in error.errors() for name in [str(e["loc"][0])]]
        raise UserError("Mistakes in the hyperparameters:\n" + bullets(lines), lines) from None


@functools.cache
def _model(hparams: tuple[HParam, ...]) -> type[BaseModel]:
    fields: dict[str, Any] = {h.name: (h.annotation, h.default) for h in hparams}
    try:
        config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        return create_model("HParams", __config__=config, **fields)
    except Exception as error:  # the types of a plugin can be anything
        names, reason = ", ".join(fields), described(error).splitlines()[0].rstrip(".")
        raise UserError(f"A type of the hyperparameters {names} cannot be checked: {reason}.") from error


def parse_json(text: str | None) -> dict[str, Any]:
    """Read the command line's ``--hparams``, a JSON object.

    Raises:
        UserError: the text is not a JSON object.
    """
    try:
        value = strict_json.loads(text or "{}")
    except ValueError as error:
        raise UserError(
            f"--hparams should be a JSON object such as '{{\"lr\": 1e-5}}'. Found {shown(text)} ({error})."
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"--hparams should be a JSON object such as '{{\"lr\": 1e-5}}'. Found {shown(text)}.")
    return value


def describe(h: HParam) -> str:
    """One line about a hyperparameter: type, bounds, default, search range."""
    search = f"; random search {h.search}" if h.search is not None else ""
    return f"{h.name}: {in_words(h.annotation)}; default {h.default!r}{search}"


def unknown(name: str, hparams: Mapping[str, HParam]) -> str:
    """What to say of a name that no hyperparameter has."""
    return f"{shown(name)} is not a hyperparameter here.{near(name, hparams)} Known: {', '.join(hparams)}."


def _explain(hparams: Mapping[str, HParam], name: str, error: Any) -> str:
    if name not in hparams:
        return unknown(name, hparams)
    return f"{name!r} should be {in_words(hparams[name].annotation)}. Found {shown(error['input'])}."


def in_words(hint: Any, metadata: Sequence[Any] = ()) -> str:
    """A type for an error message, e.g. ``a whole number ≥ 1``; a description in an `Annotated` wins.

    Args:
        hint: the type.
        metadata: its bounds, where the type does not contain them.
    """
    if typing.get_origin(hint) is Annotated:
        infos = [extra for extra in hint.__metadata__ if isinstance(extra, FieldInfo)]
        said = next((info.description for info in infos if info.description), None)
        return said or in_words(hint.__origin__, [*(m for info in infos for m in info.metadata), *metadata])
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(in_words(part, metadata) for part in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(v) for v in typing.get_args(hint))
    if hint is types.NoneType:
        return "null"
    return " ".join([_KINDS.get(hint, str(hint)), " and ".join(_bounds(metadata))]).strip()


def _bounds(metadata: Sequence[Any]) -> list[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}
    return [f"{sign} {getattr(m, key)}" for m in metadata for key, sign in signs.items() if hasattr(m, key)]
