"""The registry of models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from domainbed_sage.models.base import Model
from domainbed_sage.registry import Registry


@dataclass(frozen=True)
class ModelSpec:
    """How to build a model, and the hyperparameter defaults that suit it.

    Attributes:
        build: ``build(classes, **hparams) -> Model``, given the names of the classes; its keyword-only arguments are hyperparameters.
        recommended: defaults that replace the suite's for this model, e.g. its learning rate.
    """

    build: Callable[..., Model]
    recommended: Mapping[str, Any] = field(default_factory=dict)


models: Registry[ModelSpec] = Registry("model")


def register(name: str, **recommended: Any) -> Callable[[Callable[..., Model]], Callable[..., Model]]:
    """Decorator that enters a builder under `name` with its recommended hyperparameters."""

    def enter(build: Callable[..., Model]) -> Callable[..., Model]:
        models.register(name)(ModelSpec(build, recommended))
        return build

    return enter
