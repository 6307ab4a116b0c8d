"""The orthogonal polar factor U Vᵀ of matrices G = U Σ Vᵀ, exactly or by Newton-Schulz iteration."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from domainbed_sage.geometry.polynomials import Coefficients, Iteration, polynomials
from domainbed_sage.geometry.products import multiply

PolarMethod: TypeAlias = Literal[Iteration, "svd", "svd_rank"]
PolarDtype: TypeAlias = Literal["full", "bf16x3", "bf16", "fp16"]

Multiply: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # AB, in the third's memory if there is one

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
NORM_EPS = 1e-7
GRAM_ASPECT = 2  # from this ratio of the sides on, the Gram matrix is cheaper
GROWTH = {"full": 1e5, "bf16x3": 1e4, "bf16": 150.0, "fp16": 150.0}  # of rounding on a Gram matrix, before a restart
BLOCKS, BLOCKED_FROM = 4, 512  # a symmetric product of this size on is multiplied by block rows
BATCH_ON_CPU, BATCH_ON_DEVICE = 2**19, 2**25  # elements of matrices that are stacked: more than these gain nothing


@torch.no_grad()
def polar_factors(
    matrices: Sequence[Tensor], method: PolarMethod = "quintic", steps: int = 5, dtype: PolarDtype = "full"
) -> list[Tensor]:
    """`polar_factor` of each matrix; those of one shape are stacked and multiplied together, where that is faster."""
    same_shape = defaultdict(list)
    for i, G in enumerate(matrices):
        same_shape[G.shape, G.dtype].append(i)
    factors = list(matrices)
    for (shape, _), members in same_shape.items():
        limit = BATCH_ON_CPU if matrices[members[0]].untyped_storage().device.type == "cpu" else BATCH_ON_DEVICE
        size = max(limit // max(shape.numel(), 1), 1)
        for chunk in (members[at : at + size] for at in range(0, len(members), size)):
            together = matrices[chunk[0]] if len(chunk) == 1 else torch.stack([matrices[i] for i in chunk])
            Q = polar_factor(together, method, steps, dtype)
            for i, factor in zip(chunk, [Q] if len(chunk) == 1 else Q, strict=True):
                factors[i] = factor
    return factors


@torch.no_grad()
def polar_factor(G: Tensor, method: PolarMethod = "quintic", steps: int = 5, dtype: PolarDtype = "full") -> Tensor:
    """Approximate U Vᵀ of matrices [..., m, n] -> [..., m, n].

    - ``quintic``: X ← aX + b(XXᵀ)X + c(XXᵀ)²X with Muon's tuned coefficients; the «NewtonSchulz5 (Muon logic)» of
      SAGE's Algorithm 1, line 16. It does not converge to U Vᵀ: it brings singular values quickly to about [0.7, 1.2].
    - ``cubic``: X ← ½ X (3I - XᵀX), SAGE's Eq. 7. It converges to U Vᵀ, but from X₀ = G/‖G‖_F it needs far more than
      5 steps at the sizes of a ViT: after 5 it is nearly a rescaled gradient (largest singular value 0.5 at 768 x 768).
    - ``polar_express``: the best polynomial for each step, see `polynomials`; nearer to U Vᵀ at the quintic's cost.
    - ``svd``: U Vᵀ of the thin SVD; `steps` is not used. Where G is short of full rank the factor is not unique:
      LAPACK completes it by null vectors that depend on the last bits of G, with full weight. Such results do not
      repeat on another machine.
    - ``svd_rank``: Σ_{i ≤ r} u_i v_iᵀ over the r singular values above the rounding error of the decomposition, as
      Section 3.1 writes it; unique, and what the iterations tend to.

    The iterations start from X₀ = G / (‖G‖_F + 1e-7); for a zero matrix they give a zero
    matrix. Where one side is at least twice the other they run on the Gram matrix, the same in exact arithmetic.

    Args:
        G: the matrices.
        method: see above.
        steps: iterations T.
        dtype: of the iterations. ``full`` is that of `G`: within 1e-3 of the norm of the exact iteration in float32
            (3e-3 with ``polar_express``; `tests/geometry/test_polar.py`), usually 1e-4. ``bf16x3``
            takes all products of float32 matrices from bf16 parts, see `products`: within 4e-3 after five steps of
            ``quintic`` or ``polar_express`` (usually 2e-4; thirty of ``cubic`` on a matrix of low rank: 0.2), for three
            times the products, each on tensor cores; other dtypes are not cut. ``bf16`` and ``fp16`` round X₀ and all
            products, as Muon's code does; what is rounded away in a large singular direction is lifted in the small
            ones like a singular value, so the distance grows with the spread of the spectrum: `results/bench/README.md`
            lists it. With TF32 allowed, ``full`` is TF32 on a GPU, and so are its distances.

    Source: SAGE, Section 3.1, Eq. 7 and Algorithm 1; Jordan et al., Muon, 2024; Zhang et al., Gram Newton-Schulz, 2026
    (the restart; their package needs a Hopper GPU and computes in float16 alone).
    """
    if method in ("svd", "svd_rank"):
        U, sigma, Vh = torch.linalg.svd(G, full_matrices=False)
        rounding = max(G.shape[-2:]) * torch.finfo(G.dtype).eps * sigma[..., :1]
        return U @ Vh if method == "svd" else (U * (sigma > rounding)[..., None, :]) @ Vh
    X = (G / (torch.linalg.matrix_norm(G, keepdim=True) + NORM_EPS)).to(DTYPES.get(dtype, G.dtype))
    schedule = polynomials(method, steps)  # type: ignore[arg-type]
    product = _of_parts if dtype == "bf16x3" and X.dtype == torch.float32 else _matmul
    if max(G.shape[-2:]) >= GRAM_ASPECT * min(G.shape[-2:]):
        return _through_gram(X, schedule, _restarts(schedule, dtype), product).to(G.dtype)
    return _literally(X, schedule, product).to(G.dtype)


def _matmul(A: Tensor, B: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.matmul(A, B, out=out)


def _of_parts(A: Tensor, B: Tensor, out: Tensor | None = None) -> Tensor:
    product = multiply(A, B, "bf16x3")
    return product if out is None else out.copy_(product)


def _literally(X: Tensor, schedule: Sequence[Coefficients], product: Multiply) -> Tensor:
    """X ← aX + b(XXᵀ)X + c(XXᵀ)²X for each (a, b, c), on matrices [..., m, n]; on their shorter side, XᵀX if m > n."""
    A = Z = Y = None
    for coefficients in schedule:
        A = _gram(X, product, A)
        Z = _polynomial(A, coefficients, product, Z)
        X, Y = _times(Z, X, product, Y).add_(coefficients[0] * X), X
    return X


def _through_gram(X: Tensor, schedule: Sequence[Coefficients], restarts: Sequence[int], product: Multiply) -> Tensor:
    """The same iteration on matrices [..., m, n], carried out on A = XXᵀ [..., m, m] (XᵀX if m > n).

    With P = aI + Z, Z = bA + cA², a polynomial of A and so symmetric and commuting with it, a step X ← PX sends A to
    PAP; the P of all steps are multiplied into Q and meet X once, at the end. Two products with the long side instead
    of two a step. Rounding enters A at the scale of its largest eigenvalue and grows with the small ones; a restart,
    X ← QX and A anew, ends the growth and costs two products with the long side.
    """
    Q = A = Z = spare = None
    for step, (a, b, c) in enumerate(schedule):
        if step in restarts and Q is not None:
            X, Q, A = _times(Q, X, product), None, None
        A = _gram(X, product) if A is None else A
        Z = _polynomial(A, (a, b, c), product, Z)
        if Q is None:
            Q = Z.clone()
            Q.diagonal(dim1=-2, dim2=-1).add_(a)
        else:
            Q, spare = _symmetric_product(Z, Q, product, spare).add_(a * Q), Q
        if step + 1 < len(schedule) and step + 1 not in restarts:
            spare = _symmetric_product(Z, A, product, spare).add_(a * A)
            A = _symmetric_product(Z, spare, product, A).add_(a * spare)
    return X if Q is None else _times(Q, X, product)


def _restarts(schedule: Sequence[Coefficients], dtype: PolarDtype) -> list[int]:
    """Steps before which a Gram iteration begins again: A's smallest eigenvalues, and errors, grow a² times a step."""
    found, growth = [], 1.0
    for step, (a, _, _) in enumerate(schedule):
        if growth > GROWTH[dtype]:
            found.append(step)
            growth = 1.0
        growth *= a * a
    return found


def _gram(X: Tensor, product: Multiply, out: Tensor | None = None) -> Tensor:
    """XXᵀ or XᵀX, whichever is smaller."""
    left, right = (X, X.mT) if X.shape[-2] <= X.shape[-1] else (X.mT, X)
    return _symmetric_product(left, right, product, out)


def _times(Q: Tensor, X: Tensor, product: Multiply, out: Tensor | None = None) -> Tensor:
    """QX or XQ, on the side of X that fits `_gram`, for symmetric Q."""
    return product(Q, X, out) if X.shape[-2] <= X.shape[-1] else product(X, Q, out)


def _polynomial(A: Tensor, coefficients: Coefficients, product: Multiply, out: Tensor | None) -> Tensor:
    """Z = bA + cA² for symmetric A, written to `out` if it is given.

    Here and above the factor is multiplied in: as `alpha` of an addition in bf16 it would be rounded to bf16 itself.
    """
    _, b, c = coefficients
    return _symmetric_product(A, A, product, out).mul_(c).add_(b * A) if c else torch.mul(A, b, out=out)


def _symmetric_product(A: Tensor, B: Tensor, product: Multiply, out: Tensor | None = None) -> Tensor:
    """AB, known to be symmetric: of a large product only the upper block triangle is computed."""
    m = A.shape[-2]
    if m < BLOCKED_FROM:
        return product(A, B, out)
    out = A.new_empty((*A.shape[:-1], m)) if out is None else out
    block = -(-m // BLOCKS)
    for i in range(0, m, block):
        product(A[..., i : i + block, :], B[..., i:], out[..., i : i + block, i:])
    for i in range(0, m - block, block):
        out[..., i + block :, i : i + block] = out[..., i : i + block, i + block :].mT
    return out
