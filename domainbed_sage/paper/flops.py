"""FLOPs of a step, counted on tensors without values as `sweep plan` does; matrix products, convolutions, attention."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch._subclasses import FakeTensorMode

from domainbed_sage.geometry.perturb import spectral_ascent
from domainbed_sage.paper import steps
from domainbed_sage.sweeps.tally import Tally

NS_STEPS = 5
PRODUCTS = {"Eq. 7": 2, "quintic": 3}  # of matrices in an iteration; Appendix G says one


class Cost(NamedTuple):
    """FLOPs of a step of each method, and of what is in a step of SAGE.

    Attributes:
        steps: by method.
        ascent: of the spectral perturbation as it is computed here.
        eq7, quintic: of `NS_STEPS` iterations of either, written out.
        gram: of the inner products of K gradients.
        parameters: number of trainable parameters.
    """

    steps: dict[str, float]
    ascent: float
    eq7: float
    quintic: float
    gram: float
    parameters: int

    def ratio(self, method: str) -> float:
        """FLOPs of a step of the method over those of ERM."""
        return self.steps[method] / self.steps["ERM"]


def count(size: steps.Size, K: int) -> Cost:
    """The cost of a step with K domains, or tasks; the iterations are counted by themselves, which takes less time."""
    shapes: tuple[torch.Size, ...] = ()
    counted = {}
    for method in steps.METHODS:
        with torch.device("meta"):
            model = steps.network(size, K)
        with Tally() as tally, FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            made, rows = steps.algorithm(model, method, size, K, ns_steps=0), steps.batch(size, K)
            tally.restart()
            made.update(rows)  # type: ignore[arg-type]
            counted[method] = float(tally.flops)
        shapes = tuple(p.shape for p in made.params)
    counted["SAGE here"] += _ascent(shapes)
    counted["SAGE as written"] += _written("quintic", shapes)
    d = sum(shape.numel() for shape in shapes)
    return Cost(counted, _ascent(shapes), _written("Eq. 7", shapes), _written("quintic", shapes), K * (K + 1) * d, d)


@cache
def _ascent(shapes: tuple[torch.Size, ...]) -> float:
    with Tally() as tally, FakeTensorMode():
        weights = tuple(torch.empty(shape) for shape in shapes)
        tally.restart()
        spectral_ascent(weights, weights, 1e-6, steps=NS_STEPS)
        return float(tally.flops)


def _written(iteration: str, shapes: Sequence[torch.Size]) -> float:
    """On the shorter side s of a matrix, l the longer: 2 s² l for XXᵀ and for its product with X, 2 s³ for (XXᵀ)²."""
    total = 0.0
    for shape in shapes:
        if len(shape) >= 2:
            short, long = sorted((shape[0], shape.numel() // shape[0]))
            total += 4 * short**2 * long + 2 * short**3 * (PRODUCTS[iteration] - 2)
    return NS_STEPS * total
