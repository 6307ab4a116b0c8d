"""Points and directions in weight space, one tensor per trainable parameter; never flattened in memory."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Vector: TypeAlias = tuple[Tensor, ...]


def dot(a: Vector, b: Vector) -> Tensor:
    """Inner product Σ_j a_j b_j of two vectors, as if both were flat []."""
    return torch.stack([torch.sum(x * y) for x, y in zip(a, b, strict=True)]).sum()


def norm(a: Vector) -> Tensor:
    """Euclidean norm ‖a‖₂ of the flat vector []."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(a))))


def weighted_mean(vectors: Sequence[Vector], counts: Sequence[int]) -> Vector:
    """Σ_k n_k a_k / Σ_k n_k of K vectors with counts n_k; of equal counts, the plain mean to the last bit."""
    common = math.gcd(*counts)
    parts = [[n // common * t for t in a] if n != common else list(a) for n, a in zip(counts, vectors, strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = list(torch._foreach_add(total, part))
    return tuple(torch._foreach_div(total, sum(counts) // common))


def combine(a: float | Tensor, x: Vector, b: float | Tensor, y: Vector) -> Vector:
    """a x + b y."""
    return tuple(a * s + b * t for s, t in zip(x, y, strict=True))


def scale(a: float | Tensor, x: Vector) -> Vector:
    """a x."""
    return tuple(a * t for t in x)


def gram(vectors: Sequence[Vector]) -> Tensor:
    """Inner products ⟨a_i, a_j⟩ of K vectors [K, K]."""
    K = len(vectors)
    upper = {(i, j): dot(vectors[i], vectors[j]) for i in range(K) for j in range(i, K)}
    return torch.stack([torch.stack([upper[min(i, j), max(i, j)] for j in range(K)]) for i in range(K)])


def pairwise_cosines(G: Tensor) -> Tensor:
    """Cosines cos(a_i, a_j) of the pairs i < j, from the Gram matrix [K, K] -> [K (K-1) / 2].

    As in torch's CosineSimilarity, a norm below 1e-8 counts as 1e-8.
    """
    norms = G.diagonal().sqrt().clamp_min(1e-8)
    cosines = G / (norms[:, None] * norms[None, :])
    i, j = torch.triu_indices(len(G), len(G), offset=1, device=G.device)
    return cosines[i, j]


def agreement(G: Tensor) -> Tensor:
    """Mean pairwise cosine S in [-1/(K-1), 1] of K vectors with Gram matrix [K, K]; 1 when K = 1.

    Source: SAGE, Section 3.2 and Algorithm 1, line 11. The pairs are not weighted by sample counts.
    """
    return pairwise_cosines(G).mean() if len(G) > 1 else G.new_ones(())
