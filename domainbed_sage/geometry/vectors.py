"""Points and directions in weight space, one tensor per trainable parameter; never flattened in memory."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Vector: TypeAlias = tuple[Tensor, ...]

LONGEST_DOT = 2**13
SMALLEST_SQUARE = 1e-30
CLIP_EPS = 1e-6  # of torch.nn.utils.clip_grad_norm_


def in_own_memory(vector: Vector, params: Vector) -> Vector:
    """The vector with each tensor laid out like its parameter, in its own memory, so that it can be changed in place.

    Autograd may return one tensor for two parameters, a slice of a larger one, or an expanded one; those are copied, as
    are tensors in a parameter's memory. PyTorch 2.9 materializes a missing gradient as a leaf that requires grad;
    the tensors returned do not.
    """
    taken = {p.untyped_storage()._cdata for p in params}
    own = []
    for g, p in zip((t.detach() for t in vector), params, strict=True):
        memory = g.untyped_storage()
        alone = memory._cdata not in taken and memory.nbytes() == g.nbytes and g.stride() == p.stride()
        taken.add(memory._cdata)
        own.append(g if alone else torch.empty_like(p).copy_(g))
    return tuple(own)


def dot(a: Vector, b: Vector) -> Tensor:
    """Inner product Σ_j a_j b_j of two vectors, as if both were flat []."""
    return _dot(_pieces(a), _pieces(b))


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.dot(s, t) for s, t in zip(a, b, strict=True)]).sum()


def _pieces(vector: Vector) -> Sequence[Tensor]:
    """Its tensors, flattened; on CPU in pieces: BLAS sums in its own way, on some processors 5e-5 off over 2¹⁶ terms.

    The storage decides: fake CPU tensors have none on the CPU, and are treated like a GPU's.
    """
    flat = (x.reshape(-1) for x in vector)
    return [p for x in flat for p in (x.split(LONGEST_DOT) if x.untyped_storage().device.type == "cpu" else (x,))]


def norm(a: Vector) -> Tensor:
    """Euclidean norm ‖a‖₂ of the flat vector []."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(a))))


def part(x: Vector, mask: Sequence[bool]) -> Vector:
    """Those tensors of x that the mask names; they share its memory."""
    return tuple(itertools.compress(x, mask))


def clip_(x: Vector, longest: float) -> Vector:
    """x, shortened to the norm `longest` where it is longer, in place; as `torch.nn.utils.clip_grad_norm_`."""
    return scale_((longest / (norm(x) + CLIP_EPS)).clamp_max(1), x)


def scale(a: float | Tensor, x: Vector) -> Vector:
    """a x."""
    return tuple(torch._foreach_mul(list(x), a))


def scale_(a: float | Tensor, x: Vector) -> Vector:
    """a x, in place of x."""
    torch._foreach_mul_(list(x), a)
    return x


def add_(x: Vector, y: Vector, a: float = 1.0) -> Vector:
    """x + a y, in place of x."""
    torch._foreach_add_(list(x), list(y), alpha=a)
    return x


def orthogonal_(x: Vector, y: Vector) -> Vector:
    """The part of x that is orthogonal to y, in the memory of x; x itself where y is 0."""
    torch._foreach_sub_(list(x), list(scale(dot(x, y) / dot(y, y).clamp_min(SMALLEST_SQUARE), y)))
    return x


def add_noise_(x: Vector, size: Tensor, draw: Callable[[Tensor], Tensor]) -> Vector:
    """x + size ξ with elementwise ξ from `draw`, in place of x, one parameter after the other."""
    for t in x:
        t.add_(draw(t).mul_(size))
    return x


def weighted_mean_(vectors: Sequence[Vector], counts: Sequence[int]) -> Vector:
    """Σ_k n_k a_k / Σ_k n_k of K vectors with counts n_k, in place of the first; the others lose their values too.

    For equal counts it is the plain mean to the last bit.
    """
    common = math.gcd(*counts)
    total = vectors[0]
    for n, a in zip(counts, vectors, strict=True):
        scaled = a if n == common else scale_(n // common, a)
        total = total if scaled is total else add_(total, scaled)
    torch._foreach_div_(list(total), sum(counts) // common)
    return total


def gram(vectors: Sequence[Vector]) -> Tensor:
    """Inner products ⟨a_i, a_j⟩ of K vectors [K, K]."""
    K, pieces = len(vectors), [_pieces(v) for v in vectors]
    upper = {(i, j): _dot(pieces[i], pieces[j]) for i in range(K) for j in range(i, K)}
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
