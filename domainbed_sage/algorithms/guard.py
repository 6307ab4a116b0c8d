"""Whether a perturbation survives the arithmetic of a run, measured where it matters: in the change of the gradient."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.perturb import Survival, check_held
from domainbed_sage.geometry.products import Precision
from domainbed_sage.geometry.vectors import Vector
from domainbed_sage.models.arithmetic import tf32_allowed

if TYPE_CHECKING:
    from domainbed_sage.algorithms.base import Algorithm

EXACT = ("fp64", "fp32")
REQUIRED_COSINE = 0.99
SMALLEST_SIZE, LARGEST_SIZE = 0.9, 1.1


class Guard:
    """Compares d = g(θ + ε) - g(θ), the change of the minibatch's gradient, in a run's precision with d in fp32.

    Made at θ, before the perturbation, and asked at θ + ε: four forward-backward passes in all, and none where the
    precision is fp32 or fp64, or ε is 0; there it is measured how much of ε the weights hold. The passes draw the same
    random numbers, which are given back afterwards, and leave BatchNorm statistics alone, so that nothing of the run
    changes. They need the memory of two gradients more than a pass does.

    Args:
        algorithm: the algorithm that is about to perturb its weights.
        epsilon: its perturbation ε.

    Raises:
        UserError: the weights cannot hold ε; the minibatch is not known.
    """

    def __init__(self, algorithm: "Algorithm", epsilon: Vector) -> None:
        self.algorithm = algorithm
        self.held = check_held(algorithm.params, epsilon, algorithm.name)
        self.precisions: tuple[Precision, ...] = ()
        if algorithm.precision not in EXACT and any(bool(e.any()) for e in epsilon):
            self.precisions = (algorithm.precision, "fp32")
        self.before = [self._gradient(precision) for precision in self.precisions]

    def survival(self) -> Survival:
        """Cosine and relative size of d; called at the perturbed weights.

        Raises:
            UserError: the perturbation is lost in rounding, so the method would silently become another one.
        """
        if not self.before:
            return self.held
        changes = []
        for precision in self.precisions:
            after, before = self._gradient(precision), self.before.pop(0)
            torch._foreach_sub_(list(after), list(before))
            changes.append(after)
        found = Survival.of(*changes)
        if not (found.cosine >= REQUIRED_COSINE and SMALLEST_SIZE <= found.size <= LARGEST_SIZE):
            raise UserError(
                f"{self.algorithm.name}'s perturbation does not survive {self.algorithm.precision} arithmetic. It "
                f"changes the gradient by d = g(θ + ε) - g(θ); to d in fp32, the cosine is {found.cosine:.3f} and the "
                f"relative size {found.size:.3g}. Required are a cosine of at least {REQUIRED_COSINE} and a size from "
                f"{SMALLEST_SIZE} to {LARGEST_SIZE}: otherwise the perturbed pass sees rounding noise, and the method "
                f"silently turns into another one. Use --precision fp32 or bf16x3, or a larger radius."
            )
        return found

    def _gradient(self, precision: Precision) -> Vector:
        """Gradient of the minibatch at the present weights."""
        algorithm, batch = self.algorithm, self.algorithm.batch
        if batch is None:
            raise UserError(
                f"In {algorithm.precision}, the first perturbation of a run is measured on its minibatch. Set the "
                f"algorithm's `batch` before `update`, as the training loop does."
            )
        with ExitStack() as around:
            around.enter_context(torch.random.fork_rng([batch.x.device] if batch.x.is_cuda else []))
            around.enter_context(tf32_allowed(precision == "tf32"))
            around.enter_context(algorithm.model.frozen_statistics())
            around.enter_context(torch.enable_grad())
            kept, algorithm.precision = algorithm.precision, precision
            try:
                return algorithm.objectives.mean_gradient(batch)[1]
            finally:
                algorithm.precision = kept


def measured(algorithm: "Algorithm") -> dict[str, float]:
    """What the guard found, for records; nothing before it looked, and in precisions that need none."""
    if algorithm.survival is None or algorithm.precision in EXACT:
        return {}
    return {"perturbation_cosine": algorithm.survival.cosine, "perturbation_size": algorithm.survival.size}
