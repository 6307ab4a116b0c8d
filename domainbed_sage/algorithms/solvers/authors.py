"""The inexact routines of the authors' codes, to repeat their numbers: on the CPU, and the device waits for them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

MOST_STEPS = 250
STOP = 1e-5
LEAST_SHARE = 1e-3
ON_THE_EDGE = 1e-7


@torch.library.custom_op("domainbed_sage::min_norm", mutates_args=())
def min_norm(G: Tensor) -> Tensor:
    """Weights [K] of a short convex combination of rows with Gram matrix G [K, K], after Sener and Koltun's code.

    The best pair of rows, then line searches along the projected negative gradient, until the weights move by less
    than 1e-5 in sum, or for 250 steps.
    """
    gram = G.cpu().numpy()
    w = _best_pair(gram)
    for _ in range(MOST_STEPS if len(w) > 2 else 0):
        target = _along(w, -gram @ w)
        share, _ = _between(w @ gram @ w, w @ gram @ target, target @ gram @ target)
        before, w = w, share * w + (1 - share) * target
        if np.abs(w - before).sum() < STOP:
            w = before
            break
    return torch.from_numpy(w).to(G)


@torch.library.custom_op("domainbed_sage::fair_least_squares", mutates_args=())
def fair_least_squares(G: Tensor, alpha: float, samo: bool) -> Tensor:
    """Weights [K]: scipy's least squares of G w - w^(-1/α) or, with `samo`, of (G w)^α - 1/w, from w = 1/K."""
    from scipy.optimize import least_squares  # slow to import

    gram, K = G.cpu().numpy(), len(G)

    def residual(w: Array) -> Array:
        return (gram @ w) ** alpha - 1 / w if samo else gram @ w - (1 / w) ** (1 / alpha)

    return torch.from_numpy(least_squares(residual, np.full(K, 1 / K), bounds=(0, np.inf)).x).to(G)


@min_norm.register_fake
def _(G: Tensor) -> Tensor:
    return torch.empty_like(G[0])


@fair_least_squares.register_fake
def _(G: Tensor, alpha: float, samo: bool) -> Tensor:
    del alpha, samo
    return torch.empty_like(G[0])


def _between(aa: float, ab: float, bb: float) -> tuple[float, float]:
    """The share of a in the shortest vector between a and b, never less than 0.001 of either, and its square."""
    if ab >= aa:
        return 1 - LEAST_SHARE, aa
    if ab >= bb:
        return LEAST_SHARE, bb
    share = (bb - ab) / (aa + bb - 2 * ab)
    return share, bb + share * (ab - bb)


def _best_pair(gram: Array) -> Array:
    """Weights of the shortest vector between two rows; 1 for a single row."""
    K, w, least = len(gram), np.ones(len(gram)), np.inf
    for i in range(K):
        for j in range(i + 1, K):
            share, square = _between(gram[i, i], gram[i, j], gram[j, j])
            if square < least:
                w, least = np.zeros(K), square
                w[[i, j]] = share, 1 - share
    return w


def _along(w: Array, direction: Array) -> Array:
    """Where the line from w, in the plane of the simplex, leaves the unit cube; then projected on the simplex.

    If no weight can fall, the line ends after the step itself at the latest.
    """
    step = direction - direction.mean()
    falls, rises = step < 0, step > 0
    to_zero, to_one = -w[falls] / step[falls], (1 - w[rises]) / step[rises]
    to_zero, to_one = to_zero[to_zero > ON_THE_EDGE], to_one[to_one > ON_THE_EDGE]
    point = w + step * min([*(to_zero if len(to_zero) else [1.0]), *to_one])
    falling = np.sort(point)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(w) + 1)
    return np.maximum(point - excess[falling > excess][-1], 0)
