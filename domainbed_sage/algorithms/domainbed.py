"""DomainBed's own algorithm classes, and those of its forks, run unchanged.

A plugin of a few lines brings one::

    from my_fork.algorithms import MyMethod
    from domainbed_sage.algorithms.domainbed import adapt

    adapt(MyMethod, hparams={"my_lambda": (1.0, Power(10, -1, 1))})
"""

import inspect
import keyword
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from typing import Annotated, Any, Literal
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.foreign_state import Attributes
from domainbed_sage.algorithms.registry import register
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.models.base import Model
from domainbed_sage.models.optimizers import adam

HPARAMS = {"nonlinear_classifier": False, "class_balanced": False, "data_augmentation": True, "freeze_bn": True}
_CALLS = {"__init__": ("(input_shape, num_classes, num_domains, hparams)", 4), "predict": ("(x)", 1)}
_UPDATES = ("(minibatches, unlabeled=None)", "(x, y, **kwargs)")

Kind = Literal["minibatches", "lists"]


def adapt(
    cls: type[nn.Module],
    name: str = "",
    *,
    hparams: Mapping[str, Any] | None = None,
    network: Literal["suite", "own"] = "suite",
    passes_per_step: int = 1,
    paper: str = "",
) -> type[Algorithm]:
    """Register a class that is written for DomainBed as an algorithm of the suite.

    It is constructed as ``cls((3, s, s), C, K, hparams)``, trained by ``cls.update(minibatches)``, with
    ``minibatches = [(x_1, y_1), …, (x_K, y_K)]`` (``update(x, y)`` with two lists in SWAD's fork), and evaluated by
    ``cls.predict(x)``. Its networks, optimizers, and attributes that are numbers, texts, tensors, or containers of
    those are saved in checkpoints. Its random numbers, those of `random` and NumPy as well, follow from seed and step.

    Args:
        cls: the class.
        name: its name in the suite; by default the class's.
        hparams: its hyperparameters with their defaults, or pairs of a default and a search range; one called
            ``lambda`` is written ``lambda_`` on the command line and in sweep files. Defaults of the optimizer's and of
            ``batch_size`` replace the suite's. The class finds in its dictionary these, all others of the run (``lr``,
            ``weight_decay``, …), and DomainBed's ``nonlinear_classifier`` and the like.
        network: ``suite``: what the class calls ``networks.Featurizer`` and ``networks.Classifier`` is the run's model,
            and copies of it from the second call on; ``own``: what its code base builds.
        passes_per_step: forward-backward passes over the minibatch in one update, for planning.
        paper: authors, venue and year.

    Raises:
        UserError: the class lacks a method, or one cannot be called so; the name is taken.
    """
    kind = _check(cls)
    shared = {"batch_size", *declared(adam)}
    defaults = {k: v for k, v in (hparams or {}).items() if k not in shared}

    class Adapted(_Adapted):
        __doc__ = (
            f"{inspect.cleandoc(cls.__doc__ or cls.__name__)}\n\nDifferences from the paper: those of {cls.__module__}."
        )

    Adapted.theirs, Adapted.kind, Adapted.network, Adapted.names = cls, kind, network, {_own(k): k for k in defaults}
    Adapted.passes_per_step, Adapted.paper = passes_per_step, paper
    Adapted.recommended = {k: v[0] if isinstance(v, tuple) else v for k, v in (hparams or {}).items() if k in shared}
    Adapted.__init__ = _constructor(defaults)  # type: ignore[method-assign]
    Adapted.__qualname__ = Adapted.__name__ = cls.__name__
    return register(name or cls.__name__)(Adapted)


class _Adapted(Algorithm):
    theirs: type[nn.Module]
    kind: Kind
    network: Literal["suite", "own"]
    names: Mapping[str, str]

    def set_up(self, problem: Problem, hparams: Mapping[str, Any]) -> None:
        """Build the class in the place of the run's model."""
        classes, features = problem.classes_and_features(self.name)
        image, reference = problem.model.image, self.params[0]
        given = HPARAMS | dict(problem.hparams) | {self.names[k]: v for k, v in hparams.items()}
        suite = _SuiteNetworks(self.theirs, problem.model, features) if self.network == "suite" else None
        self.patched: Callable[[], AbstractContextManager[Any]] = suite.patched if suite else nullcontext
        with self.patched():
            made = self.theirs((3, image.size, image.size), classes, problem.num_domains, given)
        self.made: Any = made.to(reference)
        self.model = _Foreign(self.made, problem.model)
        self.params = tuple(p for p in self.model.parameters() if p.requires_grad)
        self.kept["attributes"] = Attributes(made)

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`; the class itself may wait for the device."""
        seed = torch.initial_seed() % 2**32  # the training loop's, of this step
        random.seed(seed)
        np.random.seed(seed)  # the generator that DomainBed's code draws from
        pairs = list(batch.domains())
        made = self.made
        with self.patched():  # some build networks as they go
            metrics = made.update(*map(list, zip(*pairs, strict=True))) if self.kind == "lists" else made.update(pairs)
        if not isinstance(metrics, Mapping):
            raise UserError(f"{self.name}.update should return a dict of numbers to log. Found {metrics!r}.")
        return {key: torch.as_tensor(value, dtype=torch.float64).detach() for key, value in metrics.items()}


class _Foreign(Model):
    """The class as a model: its logits are what it predicts."""

    def __init__(self, made: nn.Module, model: Model) -> None:
        nn.Module.__init__(self)
        self.made = made
        self.image, self.freeze_bn, self.class_features = model.image, model.freeze_bn, model.class_features
        self.built = {name for name, _ in made.named_children()}
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, C]."""
        logits: Tensor = self.made.predict(x)  # type: ignore[operator]
        return logits

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """As a module's, without networks that an update makes, and so the next one makes anew."""
        late = tuple(f"made.{name}." for name, _ in self.made.named_children() if name not in self.built)
        return {name: t for name, t in super().state_dict(*args, **kwargs).items() if not name.startswith(late)}

    def take_shapes(self, state: Mapping[str, Tensor]) -> None:
        """See `Model.take_shapes`."""
        for name, buffer in self.named_buffers():
            if name in state and buffer.shape != state[name].shape:
                buffer.data = torch.empty_like(state[name], dtype=buffer.dtype, device=buffer.device)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As a module's."""
        self.take_shapes(state_dict)
        return nn.Module.load_state_dict(self, state_dict, *args, **kwargs)


def _constructor(defaults: Mapping[str, Any]) -> Callable[..., None]:
    """An `__init__` with the hyperparameters as typed keyword-only arguments, as `declared` reads them."""

    def __init__(self: _Adapted, problem: Problem, **hparams: Any) -> None:  # noqa: N807
        Algorithm.__init__(self, problem)
        self.set_up(problem, hparams)

    kinds = inspect.Parameter
    parameters = [kinds("self", kinds.POSITIONAL_OR_KEYWORD), kinds("problem", kinds.POSITIONAL_OR_KEYWORD)]
    annotations: dict[str, Any] = {"problem": Problem}
    for name, value in defaults.items():
        default, *search = value if isinstance(value, tuple) else (value,)
        annotations[_own(name)] = Annotated[type(default), *search] if search else type(default)
        parameters.append(kinds(_own(name), kinds.KEYWORD_ONLY, default=default))
    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    __init__.__annotations__ = annotations
    return __init__


def _own(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def _check(cls: type[nn.Module]) -> Kind:
    """Whether `update` takes minibatches or two lists."""
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        raise UserError(f"adapt should be given a class of DomainBed's kind, a torch.nn.Module. Found {cls!r}.")
    for method, (expected, arguments) in _CALLS.items():
        if not hasattr(cls, method) or not _takes(getattr(cls, method), arguments):
            raise _differs(cls, method, [expected])
    update = getattr(cls, "update", None)
    if update is None:
        raise _differs(cls, "update", _UPDATES)
    if _takes(update, 1):
        return "minibatches"
    if _takes(update, 2):
        return "lists"
    raise _differs(cls, "update", _UPDATES)


def _takes(method: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(method).bind(*(None,) * (arguments + 1))
    except TypeError:
        return False
    return True


def _differs(cls: type, method: str, expected: Any) -> UserError:
    found = getattr(cls, method, None)
    signature = f"{method}{inspect.signature(found)}" if found is not None else "no such method"
    allowed = " or ".join(f"{method}{e}" for e in expected)
    return UserError(f"{cls.__name__} should have {allowed}, as DomainBed's algorithms do. Found {signature}.")


class _SuiteNetworks:
    """What the code base of a class builds in place of its own networks: the run's model, and from then on copies."""

    def __init__(self, cls: type, model: Model, features: int) -> None:
        head: Any = model.classifier
        self.head_shape = tuple(head.weight.shape)
        model.featurizer.n_outputs = features  # type: ignore[assignment]
        self.featurizers, self.classifiers = _handed_out(model.featurizer), _handed_out(model.classifier)
        own = {sys.modules[c.__module__] for c in cls.__mro__ if c.__module__ in sys.modules}
        self.modules = own | {m for m in (getattr(m, "networks", None) for m in own) if m is not None}

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Inside, ``Featurizer`` and ``Classifier`` of those modules are these, and optimizers fused as the suite's."""
        with ExitStack() as stack:
            for name in ("Adam", "AdamW", "SGD"):
                stack.enter_context(mock.patch.object(torch.optim, name, partial(_fused, getattr(torch.optim, name))))
            for module in self.modules:
                if hasattr(module, "Featurizer"):
                    stack.enter_context(mock.patch.object(module, "Featurizer", self._featurizer))
                if hasattr(module, "Classifier"):
                    classifier = partial(self._classifier, module.Classifier)
                    stack.enter_context(mock.patch.object(module, "Classifier", classifier))
            yield

    def _featurizer(self, *args: Any, **kwargs: Any) -> nn.Module:
        del args, kwargs
        return next(self.featurizers)

    def _classifier(
        self, original: Callable[..., nn.Module], inputs: int, outputs: int, *a: Any, **k: Any
    ) -> nn.Module:
        return next(self.classifiers) if (outputs, inputs) == self.head_shape else original(inputs, outputs, *a, **k)


def _fused(optimizer: Callable[..., torch.optim.Optimizer], params: Any, *args: Any, **kwargs: Any) -> Any:
    """A fused kernel rounds otherwise than a loop does: two methods are compared with the same one."""
    return optimizer(params, *args, **({"fused": True} if not {"foreach", "fused"} & set(kwargs) else {}) | kwargs)


def _handed_out(network: nn.Module) -> Iterator[nn.Module]:
    yield network
    while True:
        yield deepcopy(network)
