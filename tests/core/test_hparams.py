"""Hyperparameters: where they come from, who wins, and what is refused; and the registries."""

import hashlib
import inspect
import types
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Field

from domainbed_sage.algorithms import algorithms
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import (
    Choice,
    HParam,
    Power,
    Uniform,
    declared,
    describe,
    parse_json,
    resolve,
    validate,
)
from domainbed_sage.core.registry import Registry
from domainbed_sage.models import models
from domainbed_sage.models.optimizers import adam, optimizers

CONFIGURABLES = {
    **{f"algorithm {name}": cls for name, cls in algorithms.items()},
    **{f"optimizer {name}": make for name, make in optimizers.items()},
    **{f"model {name}": spec.build for name, spec in models.items()},
}


def example(
    problem,
    *,
    rho: Annotated[float, Field(ge=0), Power(10, -3, -1)] = 0.05,
    trials: Annotated[int, Field(gt=1, le=9), Power(2, 1, 3, integer=True)] = 3,
    width: Annotated[int, Field(multiple_of=8)] = 16,
    noise: bool = True,
    ns: Literal["quintic", "cubic"] = "quintic",
    tag: str = "",
    dropout: Annotated[float, Uniform(0.0, 0.5)] = 0.0,
):
    """Something configurable."""


@pytest.mark.parametrize("thing", CONFIGURABLES.values(), ids=CONFIGURABLES)
def test_declared_is_the_signature(thing):
    signature = inspect.signature(thing)
    keyword_only = {n: p.default for n, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    found = declared(thing)
    assert {name: h.default for name, h in found.items()} == keyword_only
    assert resolve(found, {}) == keyword_only


@pytest.mark.parametrize("thing", CONFIGURABLES.values(), ids=CONFIGURABLES)
def test_search_ranges_lie_within_the_bounds_and_vary(thing):
    found = declared(thing)
    drawn = [resolve(found, {}, hparams_seed=seed) for seed in range(1, 40)]
    for name, h in found.items():
        values = {repr(d[name]) for d in drawn}  # a mapping is not hashable
        assert (len(values) > 1) == (h.search is not None)
        assert h.search is not None or values == {repr(h.default)}


def test_positional_arguments_are_no_hyperparameters():
    assert list(declared(example)) == ["rho", "trials", "width", "noise", "ns", "tag", "dropout"]


def test_recommended_replaces_defaults_and_given_wins():
    found = declared(example)
    values = resolve(found, {"rho": 0.2}, recommended={"rho": 0.1, "trials": 5, "lr": 1e-6})
    assert (values["rho"], values["trials"]) == (0.2, 5)
    assert "lr" not in values


def test_given_wins_over_the_random_search():
    found = declared(example)
    drawn = resolve(found, {}, recommended={"rho": 0.3}, hparams_seed=7)
    values = resolve(found, {"rho": 0.3}, hparams_seed=7)
    assert values == drawn | {"rho": 0.3}
    assert drawn["rho"] != 0.3


def domainbed_seed(*args):
    return int(hashlib.md5(str(args).encode("utf-8")).hexdigest(), 16) % (2**31)


@pytest.mark.parametrize(("hparams_seed", "trial_seed"), [(1, 0), (1, 2), (19, 1)])
def test_random_search_is_domainbeds(hparams_seed, trial_seed):
    """One RandomState for each name, seeded by seed_hash(seed_hash(hparams_seed, trial_seed), name)."""
    seed = domainbed_seed(hparams_seed, trial_seed)
    values = resolve(declared(adam), {}, hparams_seed=hparams_seed, trial_seed=trial_seed)
    assert values["lr"] == 10 ** np.random.RandomState(domainbed_seed(seed, "lr")).uniform(-5, -3.5)
    assert values["weight_decay"] == 10 ** np.random.RandomState(domainbed_seed(seed, "weight_decay")).uniform(-6, -2)


def test_random_search_golden_number():
    """lr of hparams_seed 1, trial_seed 0 in DomainBed, computed apart from this code."""
    assert domainbed_seed(1, 0) == 785910682
    assert resolve(declared(adam), {}, hparams_seed=1)["lr"] == pytest.approx(2.7028930742148706e-05, rel=1e-12)


def test_random_search_does_not_hang_on_the_order_or_company_of_the_declarations():
    def other(*, dropout: Annotated[float, Uniform(0.0, 0.5)] = 0.0, rho: Annotated[float, Power(10, -3, -1)] = 1.0):
        """Two of the same hyperparameters, the other way round."""

    one = resolve(declared(example), {}, hparams_seed=3, trial_seed=1)
    two = resolve(declared(other, adam), {}, hparams_seed=3, trial_seed=1)
    assert (one["rho"], one["dropout"]) == (two["rho"], two["dropout"])


@pytest.mark.parametrize(
    ("search", "low", "high", "kind"),
    [
        (Power(10, -5, -3), 1e-5, 1e-3, float),
        (Power(2, 3, 5.5, integer=True), 8, 45, int),
        (Uniform(-1.0, 2.0), -1.0, 2.0, float),
        (Uniform(5, 50, integer=True), 5, 49, int),
        (Choice(0.01, 0.02, 0.05), 0.01, 0.05, float),
    ],
)
def test_search_ranges(search, low, high, kind):
    drawn = [search.draw(np.random.RandomState(seed)) for seed in range(300)]
    assert {type(v) for v in drawn} == {kind}
    assert low <= min(drawn) < max(drawn) <= high
    if isinstance(search, Choice):
        assert set(drawn) == set(search.values)
    if isinstance(search, Power):  # uniform in the exponent: half of the draws below its middle
        below = sum(v < search.base ** ((search.low + search.high) / 2) for v in drawn)
        assert 110 < below < 190


ALLOWED = {
    "rho": "a finite number ≥ 0",
    "trials": "a whole number > 1 and ≤ 9",
    "width": "a whole number a multiple of 8",
    "noise": "true or false",
    "ns": "one of 'quintic', 'cubic'",
    "tag": "a text",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rho", -1e-9),
        ("rho", float("nan")),
        ("rho", float("inf")),
        ("rho", "0.1"),
        ("rho", True),
        ("rho", None),
        ("trials", 1),
        ("trials", 10),
        ("trials", 2.5),
        ("trials", 3.0),
        ("trials", True),
        ("width", 12),
        ("noise", 1),
        ("noise", "yes"),
        ("ns", "muon"),
        ("tag", 3),
    ],
)
def test_wrong_value_is_refused_with_what_is_allowed(name, value):
    with pytest.raises(UserError) as caught:
        validate(declared(example), {name: value})
    assert str(caught.value) == (
        f"Mistakes in the hyperparameters:\n  - {name!r} should be {ALLOWED[name]}. Found {value!r}."
    )


def test_all_mistakes_stand_in_one_message():
    with pytest.raises(UserError) as caught:
        resolve(declared(example), {"rho": -1, "ns": "muon", "gama": 3, "trials": 5})
    first, *lines = str(caught.value).splitlines()
    assert first == "Mistakes in the hyperparameters:"
    assert sorted(line.split("'")[1] for line in lines) == ["gama", "ns", "rho"]
    unknown = next(line for line in lines if "gama" in line)
    assert unknown.endswith("is not a hyperparameter here. Known: rho, trials, width, noise, ns, tag, dropout.")


def test_values_get_their_declared_types():
    values = validate(declared(example), {"rho": 1, "trials": 4})
    assert (values["rho"], type(values["rho"]), type(values["trials"])) == (1.0, float, int)


def test_bad_recommendation_is_refused_too():
    with pytest.raises(UserError, match="'rho' should be a finite number ≥ 0"):
        resolve(declared(example), {}, recommended={"rho": -0.1})


def test_name_declared_twice():
    def other(*, rho: float = 1.0):
        """Declares rho again."""

    with pytest.raises(UserError, match="Hyperparameter 'rho' is declared twice, the second time by other"):
        declared(example, other)


def test_declaration_without_type_or_default():
    def untyped(*, rho=1.0):
        """No type."""

    def required(*, rho: float):
        """No default."""

    for function in (untyped, required):
        with pytest.raises(UserError, match=f"'rho' of {function.__name__} should have a type and a default"):
            declared(function)


def test_things_built_together_share_no_name():
    """Any algorithm with any optimizer and any model: no hyperparameter means two things."""
    for cls in algorithms.values():
        for make in optimizers.values():
            for spec in models.values():
                separate = [declared(thing) for thing in (cls, make, spec.build)]
                assert list(declared(cls, make, spec.build)) == [name for d in separate for name in d]


def test_describe():
    h = declared(example)["trials"]
    assert isinstance(h, HParam)
    expected = "trials: a whole number > 1 and ≤ 9; default 3; random search "
    assert describe(h) == expected + "2^U(1, 3), whole"
    assert describe(declared(example)["noise"]) == "noise: true or false; default True"


@pytest.mark.parametrize(("text", "value"), [(None, {}), ("", {}), ("{}", {}), ('{"lr": 1e-5}', {"lr": 1e-5})])
def test_json_object(text, value):
    assert parse_json(text) == value


@pytest.mark.parametrize("text", ["{lr: 1}", "[1]", "3", "null", '"lr"', "{"])
def test_anything_else_is_refused(text):
    with pytest.raises(UserError) as caught:
        parse_json(text)
    start = "--hparams should be a JSON object such as '{\"lr\": 1e-5}'. Found "
    assert str(caught.value).startswith(start + repr(text))


# Registries.


def registry():
    made = Registry("algorithm")
    for name in ("ERM", "SAGE", "SAGM"):
        made.register(name)(name.lower())
    return made


def test_registry_is_a_mapping():
    made = registry()
    assert dict(made) == {"ERM": "erm", "SAGE": "sage", "SAGM": "sagm"}
    assert "SAGE" in made
    assert "sage" not in made
    assert len(made) == 3


def test_registered_twice():
    with pytest.raises(UserError, match="algorithm 'ERM' is registered twice"):
        registry().register("ERM")("another")


@pytest.mark.parametrize(
    ("name", "guess"), [("sage", " Did you mean 'SAGE'?"), ("SAMG", " Did you mean 'SAGM'?"), ("x", "")]
)
def test_unknown_name(name, guess):
    with pytest.raises(UserError) as caught:
        registry()[name]
    assert str(caught.value) == f"Unknown algorithm {name!r}.{guess} Known: ERM, SAGE, SAGM."


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "a\nb", " a", "a ", "\x1b[2J", 3, None, ["a"], "\ud800"], ids=lambda name: ascii(name)
)
def test_what_cannot_be_a_name(name):
    registry = Registry("dish")
    with pytest.raises(UserError, match="The name of a dish should be a printable text without /"):
        registry.register(name)("stew")
    assert len(registry) == 0


def test_what_cannot_be_a_thing():
    registry = Registry("dish", str)
    with pytest.raises(UserError, match=r"dish 'stew' should be a str\. Found 3\."):
        registry.register("stew")(3)
    registry.register("a b_$")("soup")
    assert dict(registry) == {"a b_$": "soup"}


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("NoSuchType", "hyperparameters of thing cannot be read: NameError: name 'NoSuchType' is not defined"),
        (types.SimpleNamespace(), "A type of the hyperparameters odd cannot be checked: PydanticSchemaGenerationErr"),
        (types.ModuleType, r"A type of the hyperparameters odd cannot be checked: Pydantic.* fully support it\.$"),
    ],
)
def test_types_that_mean_nothing(annotation, message):
    def thing(*, odd=1):
        del odd

    thing.__annotations__["odd"] = annotation
    with pytest.raises(UserError, match=message):
        validate(declared(thing), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"lr": 1, "lr": 2}', "the key 'lr' 2 times"),
        ("[" * 100_000, r"nested too deeply"),
        ("9" * 5000, r"Found '999.*5,002 characters\) \(Exceeds the limit"),
    ],
)
def test_json_that_python_would_take_or_die_of(text, message):
    with pytest.raises(UserError, match=rf"--hparams should be a JSON object .*{message}"):
        parse_json(text)
