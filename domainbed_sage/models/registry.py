"""The registry of models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from domainbed_sage.core.errors import UserError, shown
from domainbed_sage.core.hparams import Search, check_ranges
from domainbed_sage.core.registry import Registry
from domainbed_sage.models.base import ImageSpec, Model

Provenance: TypeAlias = dict[str, str | None]
Require: TypeAlias = Callable[[Mapping[str, Any]], Provenance]


def nothing_required(hparams: Mapping[str, Any]) -> Provenance:
    """Require nothing, for a model without weight files."""
    del hparams
    return {}


@dataclass(frozen=True)
class ModelSpec:
    """How to build a model, and the hyperparameter defaults that suit it.

    Attributes:
        build: ``build(classes, **hparams) -> Model``, given the names of the classes, or the tasks; its keyword-only
            arguments are hyperparameters.
        recommended: defaults that replace the suite's for this model, e.g. its learning rate.
        require: given the hyperparameters of a run, makes sure before anything starts that the weights it needs are on
            this machine, and returns where they come from, for the records (``name``, ``sha256``, …). It raises a
            `UserError` with the command that gets a missing file, and it never downloads.
        without_weights: hyperparameters that build the same architecture without any weight file.
        search: random-search ranges that replace the suite's and the dataset's for this model, by hyperparameter.
    """

    build: Callable[..., Any]
    recommended: Mapping[str, Any] = field(default_factory=dict)
    require: Require = nothing_required
    without_weights: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Search] = field(default_factory=dict)


models: Registry[ModelSpec] = Registry("model", ModelSpec)


def register(
    name: str,
    *,
    require: Require = nothing_required,
    without_weights: Mapping[str, Any] | None = None,
    search: Mapping[str, Search] | None = None,
    **recommended: Any,
) -> Callable[[Callable[..., Model]], Callable[..., Model]]:
    """Decorator that enters a builder under `name`; see `ModelSpec` for the rest.

    Raises:
        UserError: the name is taken, or the thing is no function.
    """

    def enter(build: Callable[..., Model]) -> Callable[..., Model]:
        if not callable(build):
            raise UserError(f"Model {name!r} should be a function that builds a Model. Found {shown(build)}.")
        check_ranges(search or {}, f"model {name}")
        models.register(name)(ModelSpec(build, recommended, require, without_weights or {}, search or {}))
        return build

    return enter


def build(name: str, classes: Sequence[str], hparams: Mapping[str, Any]) -> Model:
    """Build a registered model, and make sure that it can be trained: it may come from a plugin.

    Args:
        name: its name.
        classes: names of the C classes.
        hparams: the hyperparameters that its builder declares.

    Raises:
        UserError: its builder fails, or returns something that is not a `Model`, trains nothing, cannot take the images
            that it asks for, or does not give one logit for each class.
    """
    try:
        model: Model = models[name].build(classes, **hparams)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"Model {name!r} could not be built: {type(error).__name__}: {error}") from error
    _check(name, model, len(classes))
    return model


def _check(name: str, model: Any, classes: int) -> None:
    if not isinstance(model, Model):
        raise UserError(
            f"The builder of model {name!r} should return Model(featurizer, classifier, ImageSpec(size, mean, std)), "
            f"from domainbed_sage.models. Found {type(model).__name__}."
        )
    if not _is_spec(model.image):
        raise UserError(
            f"Model {name!r} should say which images it takes: ImageSpec(size in pixels, mean, std), the last two of "
            f"three numbers. Found {model.image!r}."
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"Model {name!r} has nothing to train: no parameter requires a gradient.")
    if not any(is_lazy(t) for t in (*model.parameters(), *model.buffers())):  # those take shape in the first step
        _check_logits(name, model, classes)


def _is_spec(image: Any) -> bool:
    if not (isinstance(image, ImageSpec) and isinstance(image.size, int) and image.size > 0):
        return False
    if not all(isinstance(values, tuple | list) and len(values) == 3 for values in (image.mean, image.std)):
        return False
    return all(isinstance(value, int | float) for value in (*image.mean, *image.std)) and min(image.std) > 0


def _check_logits(name: str, model: Model, classes: int) -> None:
    """One pass over an empty image, which changes nothing: no statistics, no mode, no random number."""
    size, modes = model.image.size, [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:  # a network can fail in any way
        raise UserError(f"Model {name!r} cannot take an image of {size} pixels: {error}") from error
    finally:
        for module, mode in modes:
            module.training = mode
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (1, classes):
        raise UserError(f"Model {name!r} should return logits [N, {classes}] of N images. Found {found} of one image.")
