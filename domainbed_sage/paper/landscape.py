"""A plane with two minima, in one of which two domains contradict each other: the toy of Figure 2.

The paper shows contours and paths, and gives no formula. Chosen here: two wells of equal depth and width at A and B in
a shallow bowl, so that nothing in the mean loss prefers either; in A's well the two domains pull apart,

    L_1, L_2 = -exp(-|θ - A|² / 2s²) - exp(-|θ - B|² / 2s²) + b |θ|² / 2 ± c y exp(-|θ - A|² / 2r²)

and at B they agree. All functions take points [..., 2].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

A, B = np.array([-1.2, 0.0]), np.array([1.2, 0.0])
WIDTH, BOWL, CONFLICT, REACH = 0.6, 0.1, 3.0, 0.8  # s, b, c, r
START = np.array([-1.5, 0.9])  # in the basin of A
LR, STEPS = 0.1, 1500  # η, and steps of a run
SMALLEST = 1e-8  # of a norm in a cosine, as torch has it


class Method(NamedTuple):
    """θ ← θ - η (g + β ξ) with g the mean gradient at θ + ρ ∇L / ‖∇L‖, and β = σ + γ (1 - S).

    Attributes:
        name: of the method.
        gamma: γ of the noise that disagreement makes.
        sigma: σ of the noise that is always there, as SGLD's.
        rho: SAM's radius.
    """

    name: str
    gamma: float = 0.0
    sigma: float = 0.0
    rho: float = 0.0


def losses(theta: Array) -> tuple[Array, Array]:
    """L_1 and L_2 [...]."""
    a, b = _well(theta, A), _well(theta, B)
    mean = -a - b + BOWL * (theta**2).sum(-1) / 2
    apart = CONFLICT * theta[..., 1] * _well(theta, A, REACH)
    return mean + apart, mean - apart


def gradients(theta: Array) -> tuple[Array, Array]:
    """Their gradients [..., 2]."""
    a, b = _well(theta, A)[..., None], _well(theta, B)[..., None]
    to_a, to_b = (theta - A) / WIDTH**2, (theta - B) / WIDTH**2
    mean = a * to_a + b * to_b + BOWL * theta
    far = CONFLICT * _well(theta, A, REACH)[..., None]
    apart = -theta[..., 1:] * far * (theta - A) / REACH**2
    apart[..., 1:] += far
    return mean + apart, mean - apart


def agreement(theta: Array) -> Array:
    """S, the cosine of the two gradients [...]."""
    g, h = gradients(theta)
    lengths = [np.maximum(np.sqrt((x**2).sum(-1)), SMALLEST) for x in (g, h)]
    return np.asarray((g * h).sum(-1) / (lengths[0] * lengths[1]))


def mean_gradient(theta: Array) -> Array:
    """∇L [..., 2] of L = (L_1 + L_2) / 2."""
    g, h = gradients(theta)
    return (g + h) / 2


def paths(methods: Sequence[Method], runs: int, rng: np.random.Generator) -> Array:
    """Runs of gradient descent from `START` with Gaussian noise [STEPS + 1, methods, runs, 2].

    Args:
        methods: how each moves.
        runs: of each method; run n of every method sees the same random numbers.
        rng: draws ξ [runs, 2] of every step.
    """
    gamma, sigma, rho = (np.array(own)[:, None] for own in zip(*(m[1:] for m in methods), strict=True))
    theta = np.broadcast_to(START, (len(methods), runs, 2)).copy()
    kept = np.empty((STEPS + 1, *theta.shape))
    kept[0] = theta
    for step in range(STEPS):
        beta = sigma + gamma * (1 - agreement(theta))
        g = mean_gradient(theta)
        length = np.maximum(np.sqrt((g**2).sum(-1, keepdims=True)), SMALLEST)
        g = mean_gradient(theta + rho[..., None] * g / length)
        theta = theta - LR * (g + beta[..., None] * rng.standard_normal((runs, 2)))
        kept[step + 1] = theta
    return kept


def _well(theta: Array, centre: Array, width: float = WIDTH) -> Array:
    return np.asarray(np.exp(-((theta - centre) ** 2).sum(-1) / (2 * width**2)))
