"""Methods that leave the training to another one and end in an average of its weights."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.averages import check_averaged
from domainbed_sage.algorithms.base import Algorithm, Metrics, Problem
from domainbed_sage.algorithms.registry import algorithms
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.vectors import Vector

InnerName: TypeAlias = Annotated[str, Field(description="the name of an algorithm")]
InnerHParams: TypeAlias = Annotated[dict[str, Any], Field(description="an object of that algorithm's hyperparameters")]


class Around(Algorithm):
    """An algorithm around another one.

    Args:
        problem: see `Problem`; the other algorithm is given the same one.
        around: name of the other algorithm.
        hparams: hyperparameters of it, where they are not its defaults.

    Attributes:
        inner: the other algorithm.
        averaged: the weights to average: those it trains, and those of its further networks.

    Raises:
        UserError: the other algorithm is not known, has other hyperparameters, or ends in weights of its own; or the
            network's BatchNorm statistics are not fixed.
    """

    def __init__(self, problem: Problem, around: str, hparams: Mapping[str, Any]) -> None:
        super().__init__(problem)
        cls = inner_class(self.name, around)
        self.inner = cls(problem, **inner_hparams(self.name, cls, hparams))
        check_averaged(self.name, (self.model, self.inner.networks))
        self.params, self.optimizer = self.inner.params, self.inner.optimizer
        if not self.params:
            raise UserError(f"{self.name} cannot go around {around}, which trains nothing. Choose another algorithm.")
        self.averaged: Vector = (*self.params, *(p for p in self.inner.networks.parameters() if p.requires_grad))

    @classmethod
    def passes(cls, steps: int, hparams: Mapping[str, Any]) -> int:
        """See `Algorithm.passes`: those of the other algorithm."""
        inner = inner_class(cls.name, hparams["around"])
        return inner.passes(steps, inner_hparams(cls.name, inner, hparams["around_hparams"]))

    @classmethod
    def completed(cls, hparams: Mapping[str, Any]) -> dict[str, Any]:
        """See `Algorithm.completed`: with all hyperparameters of the other algorithm."""
        inner = inner_class(cls.name, hparams["around"])
        return {**hparams, "around_hparams": inner_hparams(cls.name, inner, hparams["around_hparams"])}

    @classmethod
    def kind_of_step(cls, step: int, hparams: Mapping[str, Any]) -> int:
        """See `Algorithm.kind_of_step`: the other algorithm's."""
        inner = inner_class(cls.name, hparams["around"])
        return inner.kind_of_step(step, inner_hparams(cls.name, inner, hparams["around_hparams"]))

    @classmethod
    def repeating(cls, hparams: Mapping[str, Any], times: int) -> dict[str, Any]:
        """See `Algorithm.repeating`: the other algorithm's."""
        inner = inner_class(cls.name, hparams["around"])
        return {**hparams, "around_hparams": inner.repeating(hparams["around_hparams"], times)}

    def update_inner(self, batch: DomainBatch) -> Metrics:
        """One step of the other algorithm."""
        self.inner.step, self.inner.draws, self.inner.batch = self.step, self.draws, self.batch
        self.inner.survival = self.survival
        metrics = self.inner.update(batch)
        self.survival = self.inner.survival
        return metrics

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rows [N, C], as the other algorithm computes them."""
        return self.inner.forward(x)

    def state_dict(self) -> dict[str, Any]:
        """See `Algorithm.state_dict`: the other algorithm's state, and what is kept here."""
        return {**self.inner.state_dict(), "around": {name: part.state_dict() for name, part in self.kept.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Algorithm.load_state_dict`."""
        self.inner.load_state_dict(state)
        self.survival = self.inner.survival
        for name, part in self.kept.items():
            part.load_state_dict(state["around"][name])


def inner_class(name: str, around: str) -> type[Algorithm]:
    """The algorithm to go around.

    Raises:
        UserError: there is none of that name, or it ends in weights of its own.
    """
    cls = algorithms[around]
    if cls.finish is not Algorithm.finish:
        usual = [other for other, c in algorithms.items() if c.finish is Algorithm.finish]
        raise UserError(
            f"{name} cannot go around {around}, which ends in an average of its own. Found around = {around!r}. "
            f"Choose one of {', '.join(usual)}."
        )
    return cls


def inner_hparams(name: str, cls: type[Algorithm], given: Mapping[str, Any]) -> dict[str, Any]:
    """All hyperparameters of the algorithm to go around.

    Raises:
        UserError: names that it does not have, or impossible values.
    """
    try:
        return cls.completed(validate(declared(cls), given))
    except UserError as error:
        mistakes = [f"around_hparams of {name}, those of {cls.name}: {m}" for m in error.mistakes]
        raise UserError("\n".join(mistakes), mistakes) from None
