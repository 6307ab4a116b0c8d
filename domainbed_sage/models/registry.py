"""The registry of models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from domainbed_sage.core.registry import Registry
from domainbed_sage.models.base import Model

Provenance: TypeAlias = dict[str, str | None]
Require: TypeAlias = Callable[[Mapping[str, Any]], Provenance]


def nothing_required(hparams: Mapping[str, Any]) -> Provenance:
    """A model without weight files."""
    del hparams
    return {}


@dataclass(frozen=True)
class ModelSpec:
    """How to build a model, and the hyperparameter defaults that suit it.

    Attributes:
        build: ``build(classes, **hparams) -> Model``, given the names of the classes; its keyword-only arguments are
            hyperparameters.
        recommended: defaults that replace the suite's for this model, e.g. its learning rate.
        require: given the hyperparameters of a run, makes sure before anything starts that the weights it needs are on
            this machine, and returns where they come from, for the records (``name``, ``sha256``, …). It raises a
            `UserError` with the command that gets a missing file, and it never downloads.
        without_weights: hyperparameters that build the same architecture without any weight file.
    """

    build: Callable[..., Model]
    recommended: Mapping[str, Any] = field(default_factory=dict)
    require: Require = nothing_required
    without_weights: Mapping[str, Any] = field(default_factory=dict)


models: Registry[ModelSpec] = Registry("model")


def register(
    name: str,
    *,
    require: Require = nothing_required,
    without_weights: Mapping[str, Any] | None = None,
    **recommended: Any,
) -> Callable[[Callable[..., Model]], Callable[..., Model]]:
    """Decorator that enters a builder under `name`; see `ModelSpec` for the rest."""

    def enter(build: Callable[..., Model]) -> Callable[..., Model]:
        models.register(name)(ModelSpec(build, recommended, require, without_weights or {}))
        return build

    return enter
