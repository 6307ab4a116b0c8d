"""Minima over the simplex {w : w ≥ 0, Σ_k w_k = 1} of functions of a Gram matrix G [K, K].

The rows are brought to length one first: w_k = e_k u_k with e_k = min_j |g_j| / |g_k|, so that wᵀGw is uᵀCu with the
cosines C, times min_j |g_j|². The answers do not depend on the scale of G, and lengths may differ by many orders.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

ENUMERATED = 4
INTERIOR_STEPS = 80
CENTRING = 0.3
SHARE_TO_BOUNDARY = 0.99
SOLVED = 1e-6  # largest relative gap of `interior`; it ends at 1e-12 where it finds the minimum
ROUNDING = 1e-14  # a uᵀCu below this share of Σ_k u_k² is the rounding of its own terms
NOTHING = 1e-7  # its root


class UnitRows(NamedTuple):
    """Cosines C [K, K] of the rows, 0 for a zero row, and e [K], see above; and which rows are not zero [K]."""

    C: Tensor
    e: Tensor
    nonzero: Tensor


def unit_rows(G: Tensor) -> UnitRows:
    """Bring the rows of a Gram matrix [K, K] to length one. A zero row counts as long as the longest."""
    lengths = G.diagonal().clamp_min(0).sqrt()
    nonzero = lengths > 0
    lengths = torch.where(nonzero, lengths, torch.where(nonzero.any(), lengths.max(), 1))
    return UnitRows(G / lengths[:, None] / lengths, lengths.min() / lengths, nonzero)


def shortest(G: Tensor) -> Tensor:
    """Weights w [K] in the simplex whose sum g_w = Σ_k w_k g_k is the shortest."""
    C, e, _ = unit_rows(G)
    return lowest(C, e, torch.zeros_like(e), torch.ones_like(e[0]))


def lowest(C: Tensor, e: Tensor, b: Tensor, s: Tensor) -> Tensor:
    """The w [K] = e u in the simplex with the smallest bᵀu + s √(uᵀCu); s > 0, and b = C a for some a.

    Up to `ENUMERATED` rows it is the best of the minima in the planes of all faces of the simplex. On a face let h be
    the shortest vector, and v the projection of Σ_k a_k g_k / |g_k| on the plane's directions: the minimum is h - τ v
    with τ = |h| / √(s² - |v|²); there is none if |v| ≥ s. Equal minima are averaged, so that equal rows get equal
    weights. Above it, see `interior`.
    """
    if len(C) > ENUMERATED:
        return interior(C, e, b, s)
    h, v = stationary(C, e, b)
    tau = quadratic(C, h).clamp_min(0).sqrt() / (s**2 - v @ b).sqrt()
    u = h - tau[:, None] * v
    values = torch.where((u >= 0).all(-1), u @ b + s * quadratic(C, u).clamp_min(0).sqrt(), torch.inf)
    chosen = (values == values.min())[:, None]
    return on_simplex(e, torch.where(chosen, u, 0).sum(0))


def stationary(C: Tensor, e: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """On each of the F faces: the minimum u of uᵀCu with eᵀu = 1, and v with Cv = b up to a multiple of e, eᵀv = 0.

    Both [F, K], zero off the face, and not restricted to u ≥ 0. They are not finite, or wrong, on a face whose rows
    are dependent in such a way that a smaller face has the same minimum.
    """
    K = len(C)
    faces = [face for face in itertools.product((0.0, 1.0), repeat=K) if any(face)]
    on = torch.tensor(faces, dtype=C.dtype, device=C.device)  # [F, K]
    M = C.new_zeros(len(faces), K + 1, K + 1)
    M[:, :K, :K] = C * on[:, :, None] * on[:, None, :] + torch.diag_embed(1 - on)
    M[:, :K, K] = M[:, K, :K] = e * on
    rhs = C.new_zeros(len(faces), K + 1, 2)
    rhs[:, K, 0] = 1
    rhs[:, :K, 1] = b * on
    u, v = torch.linalg.solve_ex(M, rhs).result[:, :K].unbind(-1)
    return u, v


def interior(C: Tensor, e: Tensor, b: Tensor, s: Tensor) -> Tensor:
    """See `lowest`: a primal-dual interior-point method, by a fixed number of steps.

    The root is the minimum ½ (uᵀCu / t + t) over t > 0, which is found along with u. Under the root stands 1e-16 more,
    so that it is smooth. The gap between the value and the minimum is 1e-12 of the value in general; all weights are
    NaN if it stays above 1e-6, as can happen where 0 is a convex combination of the rows in many ways.
    """
    K, one = len(C), torch.eye(len(C), dtype=C.dtype, device=C.device)
    u = torch.ones_like(e) / e.sum()
    smooth = ROUNDING / 100 * (u @ u)
    t = (quadratic(C, u).clamp_min(0) + smooth).sqrt()
    z = s * t / K / u
    least = ROUNDING / 100 * s * t / K
    for _ in range(INTERIOR_STEPS):
        Cu = C @ u
        square, mu = u @ Cu + smooth, torch.maximum(CENTRING * (u @ z) / K, least)
        across = -s * Cu / t**2
        M = C.new_zeros(K + 2, K + 2)
        M[:K, :K] = s / t * (C + ROUNDING * one) + torch.diag(z / u)
        M[:K, K] = M[K, :K] = across
        M[K, K] = s * square / t**3
        M[:K, K + 1] = M[K + 1, :K] = e
        rhs = torch.cat([mu / u - b - s / t * Cu, torch.stack([s / 2 * (square / t**2 - 1), 1 - e @ u])])
        step = torch.linalg.solve_ex(M, rhs).result[: K + 1]
        dz = mu / u - z - z / u * step[:K]
        now, change = torch.cat([u, t[None], z]), torch.cat([step, dz])
        now = now + _share(now, change) * change
        u, t, z = now[:K], now[K], now[K + 1 :]
    t = (quadratic(C, u).clamp_min(0) + smooth).sqrt()
    slope = b + s / t * (C @ u)
    gap = u @ slope - (slope / e).min()
    found = gap <= SOLVED * (s * t + (b @ u).abs()) + NOTHING * s * u.norm()
    return torch.where(found, on_simplex(e, u), torch.nan)


def _share(x: Tensor, dx: Tensor) -> Tensor:
    """How much of the step dx leaves x positive; at most 1."""
    return SHARE_TO_BOUNDARY / (-dx / x).max().clamp_min(SHARE_TO_BOUNDARY)


def quadratic(C: Tensor, u: Tensor) -> Tensor:
    """uᵀCu of points [..., K]."""
    return ((u @ C) * u).sum(-1)


def on_simplex(e: Tensor, u: Tensor) -> Tensor:
    """w = e u, with the sum 1."""
    w = e * u
    return w / w.sum()
