"""Matrix products in the precisions of a run: bf16 products of the parts of fp32 matrices, and emulated TF32.

An fp32 number has 24 bits, a bf16 number 8: x ≈ x₀ + x₁ with x₀ = bf16(x), x₁ = bf16(x - x₀) holds 16 of them, three
parts all. ``bf16x3`` sums x₀y₀ + x₀y₁ + x₁y₀ and is off by at most 3 · 2⁻¹⁶ of |x||y|, usually a tenth of that;
``bf16x6`` sums the six products of three parts that are not below 2⁻¹⁶, and is as exact as fp32. Sums are in fp32. On a
GPU one product of tensor cores does it, on the parts side by side; on a CPU each is an fp32 product of parts: the same
numbers, summed in another order.

bf16 has the range of fp32, so nothing overflows that would not in fp32. Limits: a number above 3.39e38, bf16's largest,
gives NaN, as an infinity does; below 1e-33 the parts run out of bits, and up to 2⁻¹³⁴ of a number is lost.
"""

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

Precision: TypeAlias = Literal["fp64", "fp32", "tf32", "bf16", "bf16x3", "bf16x6"]

PARTS = {"bf16x3": 2, "bf16x6": 3}
_DISCARDED_TF32_BITS = 13


def rounded(t: Tensor, precision: Precision) -> Tensor:
    """Return `t` as a matrix product in this precision sees it, in the dtype of `t`.

    TF32 keeps 10 bits of the mantissa (round half up); the bf16 products all that their parts hold.
    """
    if precision in PARTS:
        return torch.stack([part.to(t.dtype) for part in split(t, PARTS[precision])]).sum(0)
    if precision == "bf16":
        return t.to(torch.bfloat16).to(t.dtype)
    if precision == "tf32":
        half = 1 << (_DISCARDED_TF32_BITS - 1)
        kept = (t.float().view(torch.int32) + half) & -(1 << _DISCARDED_TF32_BITS)
        return kept.view(torch.float32).to(t.dtype)
    return t


def split(t: Tensor, count: int) -> list[Tensor]:
    """So many bf16 tensors whose sum is nearly `t`, the largest first: each rounds what those before it leave."""
    parts = [t.to(torch.bfloat16)]
    while len(parts) < count:
        t = t - parts[-1]
        parts.append(t.to(torch.bfloat16))
    return parts


def multiply(a: Tensor, b: Tensor, precision: Precision) -> Tensor:
    """Matrices [m, k] and [k, n], or stacks of them [s, m, k] and [s, k, n] -> ab in fp32, without a gradient.

    Args:
        a: in fp32.
        b: in fp32.
        precision: ``bf16x3``, ``bf16x6``, or ``tf32`` as on a GPU, for a CPU.
    """
    if precision == "tf32":
        return rounded(a, precision) @ rounded(b, precision)
    count = PARTS[precision]
    pairs = [(i, total - i) for total in reversed(range(count)) for i in range(total + 1)]  # small products first
    left, right = split(a, count), split(b, count)
    if _on_cpu(a):
        left, right = [part.float() for part in left], [part.float() for part in right]
        first, *others = pairs
        product = left[first[0]] @ right[first[1]]
        for i, j in others:
            product += left[i] @ right[j]
        return product
    beside = torch.cat([left[i] for i, _ in pairs], -1), torch.cat([right[j] for _, j in pairs], -2)
    return (torch.mm if a.ndim == 2 else torch.bmm)(*beside, out_dtype=torch.float32)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, precision: Precision) -> Tensor:
    """`torch.nn.functional.linear` [..., k] -> [..., n] whose product, and those of its gradients, are `multiply`'s.

    Gradients can be differentiated again, as often as one likes. What is not in fp32 is computed as it is.
    """
    if not x.dtype == weight.dtype == torch.float32:
        return torch.nn.functional.linear(x, weight, bias)
    y: Tensor = _Rows.apply(x.reshape(-1, x.shape[-1]), weight, precision)
    y = y if bias is None else y.add_(bias)
    return y.reshape(*x.shape[:-1], len(weight))


class _Rows(torch.autograd.Function):
    """Inner products of the rows of two matrices, x [m, k] and w [n, k] -> x wᵀ [m, n]; its gradients are the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, precision: Precision) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.precision = precision
        return multiply(x, w.mT, precision)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (g,), (x, w) = grads, ctx.saved_tensors
        of_x = _Rows.apply(g, w.mT, ctx.precision) if ctx.needs_input_grad[0] else None
        of_w = _Rows.apply(g.mT, x.mT, ctx.precision) if ctx.needs_input_grad[1] else None
        return of_x, of_w, None


def _on_cpu(t: Tensor) -> bool:
    """Whether the values are there; fake CPU tensors, with which costs are counted, are treated like a GPU's."""
    return t.untyped_storage().device.type == "cpu"
