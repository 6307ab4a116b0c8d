"""What an algorithm is given, and what it has to be."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from domainbed_sage.algorithms.draws import Draws
from domainbed_sage.algorithms.guard import Guard
from domainbed_sage.algorithms.objectives import Domains, Objectives
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import Survival, perturbed
from domainbed_sage.geometry.products import Precision
from domainbed_sage.geometry.vectors import Vector, in_own_memory
from domainbed_sage.models.arithmetic import products_in
from domainbed_sage.models.base import Model
from domainbed_sage.models.multitask import of_domains_alone

N = TypeVar("N", bound=nn.Module)

Metrics: TypeAlias = dict[str, Tensor]
OptimizerFactory: TypeAlias = Callable[..., Optimizer]  # of the parameters; keywords replace its hyperparameters


@dataclass(frozen=True)
class Problem:
    """What every algorithm is given.

    Attributes:
        model: network with `featurizer` and `classifier`.
        make_optimizer: the base optimiser OPT of the papers, with its hyperparameters filled in; keywords replace them.
        num_domains: number K of source domains.
        precision: arithmetic of the forward and backward passes.
        steps: number T of updates of the run; 0 where nobody trains to an end.
        batch_size: rows of every domain in a minibatch; 0 where they differ or are not known.
        evaluations: number of evaluations every `checkpoint_freq` steps; 0 where there are none.
        hparams: all hyperparameters of the run, those of other parts as well.
        objectives: makes the losses that an algorithm sees: those of source domains, or of tasks.
    """

    model: Model
    make_optimizer: OptimizerFactory
    num_domains: int
    precision: Precision = "fp32"
    steps: int = 0
    batch_size: int = 0
    evaluations: int = 0
    hparams: Mapping[str, Any] = field(default_factory=dict)
    objectives: "Callable[[Algorithm], Objectives]" = Domains

    def classes_and_features(self, name: str) -> tuple[int, int]:
        """Number of classes C and of features D, for the algorithm of this name, which needs to know them.

        Raises:
            UserError: the classifier is not linear.
        """
        weight = getattr(self.model.classifier, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            raise UserError(
                f"{name} needs a linear classifier, with a weight [classes, features]. Found "
                f"{type(self.model.classifier).__name__}. Choose another model, or another head of it."
            )
        return int(weight.shape[0]), int(weight.shape[1])


class Algorithm(ABC):
    """One published training method; a subclass is final and writes `update` alone.

    Its hyperparameters are the keyword-only arguments of its constructor: typed, with the paper's values as defaults.

    Attributes:
        params: the trainable parameters θ.
        objectives: the losses L_1, …, L_K and their gradients.
        step: number of updates already done; the training loop sets it.
        batch: the minibatch of this update, for the guard; the training loop sets it.
        precision: arithmetic of the forward and backward passes, the problem's.
        survival: what the guard measured at the first perturbation; None before it.
        draws: the source of all random numbers of an update.
        networks: further networks of the method, by name, e.g. a discriminator; saved and restored with the run.
        kept: whatever else a restart needs, by name: optimizers, averages; anything with a `state_dict`.
        passes_per_step: forward-backward passes over the minibatch in one update, for planning.
        repeated: hyperparameter that says how often a step repeats the same passes, if one does; planning counts a few.
        recommended: defaults of the optimizer that the method's authors replaced.
        paper: authors, venue and year of its publication.
        experimental: whether there is no code of its authors to compare with.
        min_domains, min_rows: the fewest source domains, and rows of each in a minibatch, that it works with.
        watches_loss: whether `validated` is to be called after every evaluation.
    """

    name: ClassVar[str] = "algorithm"
    passes_per_step: ClassVar[int] = 1
    repeated: ClassVar[str | None] = None
    recommended: ClassVar[Mapping[str, Any]] = {}
    paper: ClassVar[str] = ""
    experimental: ClassVar[bool] = False
    min_domains: ClassVar[int] = 1
    min_rows: ClassVar[int] = 1
    watches_loss: ClassVar[bool] = False

    def __init__(self, problem: Problem) -> None:
        self._check(problem)
        self.problem = problem
        self.model = problem.model
        self.params: Vector = tuple(p for p in self.model.parameters() if p.requires_grad)
        self.optimizer = problem.make_optimizer(self.params)
        self.draws = Draws()
        self.networks = nn.ModuleDict()
        self.kept: dict[str, Any] = {}
        self.step = 0
        self.batch: DomainBatch | None = None
        self.precision: Precision = problem.precision
        self.survival: Survival | None = None
        self.objectives = problem.objectives(self)

    @classmethod
    def _check(cls, problem: Problem) -> None:
        for what, least, found in (
            ("source domains", cls.min_domains, problem.num_domains),
            ("rows of every source domain in a minibatch (batch_size)", cls.min_rows, problem.batch_size),
        ):
            if 0 < found < least:
                raise UserError(f"{cls.name} needs at least {least} {what}. Found {found}.")

    def add_network(self, name: str, network: N) -> N:
        """Enter a new network into `networks`, moved to the device and precision of the parameters, and return it.

        One that is there already is not touched: fake tensors, which `sweep plan` counts with, cannot be moved.
        """
        there, tensors = self.params[0], itertools.chain(network.parameters(), network.buffers())
        if any((t.device, t.dtype) != (there.device, there.dtype) for t in tensors if t.is_floating_point()):
            network.to(there)
        self.networks[name] = network
        return network

    @abstractmethod
    def update(self, batch: DomainBatch) -> Metrics:
        """Do one step and return scalar tensors to log; they stay on the device until they are logged."""

    @classmethod
    def passes(cls, steps: int, hparams: Mapping[str, Any]) -> int:
        """Forward-backward passes over a minibatch in a run of `steps` updates, for planning."""
        del hparams
        return steps * cls.passes_per_step

    @classmethod
    def kind_of_step(cls, step: int, hparams: Mapping[str, Any]) -> int:
        """The kind of a step, for planning: steps of one kind and with equally many passes have the same cost."""
        del step, hparams
        return 0

    @classmethod
    def completed(cls, hparams: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters that are recorded, from those that are valid one by one.

        Raises:
            UserError: they do not go together.
        """
        return dict(hparams)

    @classmethod
    def repeating(cls, hparams: Mapping[str, Any], times: int) -> dict[str, Any]:
        """The hyperparameters with which a step repeats its passes at most so many times, see `repeated`."""
        return {**hparams, **({cls.repeated: min(hparams[cls.repeated], times)} if cls.repeated else {})}

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of the rows []."""
        return F.cross_entropy(self.forward(x), y)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rows [N, C], in the precision of the problem."""
        return self.in_precision(self.model, x)

    def features(self, x: Tensor) -> Tensor:
        """Features of the rows [N, D], in the precision of the problem."""
        return self.in_precision(self.model.featurizer, x)

    def classify(self, z: Tensor) -> Tensor:
        """Logits [N, C] of features [N, D], in the precision of the problem."""
        return self.in_precision(self.model.classifier, z)

    def in_precision(self, network: Callable[[Tensor], Tensor | tuple[Tensor, ...]], x: Tensor) -> Tensor:
        """What a network makes of x, computed in the precision of the problem and returned in that of x."""
        with self.arithmetic(x.device):
            output = network(x)
        if not isinstance(output, Tensor):  # one for each of several tasks
            raise of_domains_alone("single output")
        return output.to(x.dtype)

    @contextmanager
    def arithmetic(self, device: torch.device) -> Iterator[None]:
        """Networks compute in the precision of the problem inside the block."""
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with autocast, products_in(self.precision, device):
            yield

    def domain_losses(self, batch: DomainBatch) -> Tensor:
        """L_1, …, L_K from one forward pass over the whole batch [K]."""
        return self.objectives.losses(batch)

    def gradient(self, batch: DomainBatch) -> tuple[Tensor, Vector]:
        """Loss L of the whole batch, which is Σ_k w_k L_k, and its gradient; other `Objectives` aggregate otherwise."""
        return self.objectives.gradient(batch)

    def gradient_of(self, loss: Tensor) -> tuple[Tensor, Vector]:
        """Detached loss and its gradient, to be changed in place; zero for a parameter outside the loss."""
        grads = torch.autograd.grad(loss, self.params, allow_unused=True, materialize_grads=True)
        return loss.detach(), in_own_memory(grads, self.params)

    def domain_moments(self, batch: DomainBatch) -> tuple[Tensor, Tensor, Vector]:
        """Losses L_1, …, L_K [K], Gram matrix ⟨g_i, g_j⟩ [K, K], and Σ_k w_k g_k of the domain gradients."""
        return self.objectives.moments(batch)

    def domain_gradients(self, batch: DomainBatch) -> tuple[Tensor, list[Vector]]:
        """Losses L_1, …, L_K [K] and gradients g_1, …, g_K of the domains."""
        return self.objectives.gradients(batch)

    @contextmanager
    def perturbed(self, epsilon: Vector) -> Iterator[Vector]:
        """Weights θ + ε inside the block, exactly θ after it; BatchNorm statistics are not updated inside.

        They are made in the memory of ε, whose value is lost, and given to the block.
        The first perturbation of a run is measured: a `Guard` stops a run whose precision loses it.
        """
        guard = None if self.survival else Guard(self, epsilon)
        with perturbed(self.params, epsilon) as weights, self.model.frozen_statistics():
            if guard:
                self.survival = guard.survival()
            yield weights

    def descend(self, gradient: Vector) -> None:
        """One step of the base optimiser along `gradient`."""
        for p, g in zip(self.params, gradient, strict=True):
            p.grad = g.detach()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.objectives.stepped()

    def restart_optimizer(self) -> None:
        """Make the optimizer anew, without its state, where a method's objective jumps."""
        self.optimizer = self.problem.make_optimizer(self.params)

    def validated(self, loss: float) -> None:  # noqa: B027 - a hook
        """Take note of the mean loss of the source domains' out splits after this step, if `watches_loss`."""

    def finish(self) -> str:
        """Give the model the weights that the method ends in, after the last step; return what they are, for records.

        Empty, as here, where they are those of the last step.
        """
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Everything a restart needs: weights, optimiser, the guard's measurement, `networks`, `kept`.

        It may hold tensors, which have to be finite, numbers, texts, and lists, tuples, sets and dictionaries of them.
        """
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"networks": self.networks.state_dict()} if self.networks else {}
        state |= {"kept": {name: part.state_dict() for name, part in self.kept.items()}} if self.kept else {}
        state |= {"objectives": kept} if (kept := self.objectives.state_dict()) else {}
        cosine, size = self.survival or (None, None)
        return {**state, "perturbation_cosine": cosine, "perturbation_size": size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state that `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.networks:
            self.networks.load_state_dict(state["networks"])
        for name, part in self.kept.items():
            part.load_state_dict(state["kept"][name])
        self.objectives.load_state_dict(state.get("objectives", {}))
        cosine, size = state.get("perturbation_cosine"), state.get("perturbation_size")
        if cosine is None or size is None:  # earlier versions measured the weights, and no size
            self.survival = None
        else:
            self.survival = Survival(cosine, size)
