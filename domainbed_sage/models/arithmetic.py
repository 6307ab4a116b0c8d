"""Any network's products in the precision of a run: a wrapper around its forward pass, and no second network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from domainbed_sage.geometry.products import PARTS, Precision, linear


def products_in(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """In this block networks compute their products in ``bf16x3`` or ``bf16x6``, and in TF32 on a CPU, which has none.

    These products are those of `torch.nn.Linear`, the projections of `torch.nn.MultiheadAttention`, and convolutions
    without overlap: patch embeddings and 1 x 1, also of strides; each forward and backward. Everything else stays in
    fp32: other convolutions (3 x 3, depthwise), the inner products of attention, norms, products written as `@`, and
    losses. In the other precisions, and on tensors that are not in fp32, the block does nothing.
    """
    if precision in PARTS or (precision == "tf32" and device.type != "cuda"):
        return _Products(_replacements(precision))
    return nullcontext()


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """In this block a GPU's fp32 products are in TF32, or are not."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class _Products(TorchFunctionMode):
    """Calls other functions in the place of some of PyTorch's."""

    def __init__(self, replacements: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.replacements = replacements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.replacements.get(func, func)(*args, **(kwargs or {}))


@cache
def _replacements(precision: Precision) -> dict[Callable[..., Any], Callable[..., Any]]:
    product = partial(linear, precision=precision)
    return {
        F.linear: product,
        F.conv2d: partial(_conv2d, product),
        F.multi_head_attention_forward: _attention_with(product),
    }


def _conv2d(
    product: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` as a product where its patches do not overlap; the result's memory then has the channels last."""
    kernel, strides = tuple(weight.shape[2:]), _pair(stride)
    pixelwise = kernel == (1, 1)
    apart = pixelwise or (kernel == strides and _pair(dilation) == (1, 1))
    if groups != 1 or x.ndim != 4 or not apart or _pair(0 if padding == "valid" else padding) != (0, 0):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if pixelwise:
        x = x[..., :: strides[0], :: strides[1]]
    return product(_patches(x, *kernel), weight.flatten(1), bias).movedim(-1, 1)


def _pair(value: Any) -> tuple[Any, Any]:
    return (value, value) if isinstance(value, int | str) else tuple(value) * (2 // len(value))


def _patches(x: Tensor, p: int, q: int) -> Tensor:
    """Images [N, C, H, W] -> patches of p x q pixels [N, H / p, W / q, C p q]; rows and columns over are left out."""
    N, C, H, W = x.shape
    whole = x[..., : H // p * p, : W // q * q].reshape(N, C, H // p, p, W // q, q)
    return whole.permute(0, 2, 4, 1, 3, 5).flatten(3)


def _attention_with(product: Callable[..., Tensor]) -> Callable[..., Any]:
    """PyTorch's own `multi_head_attention_forward`, with another function in the place of `linear`."""
    scope = {**vars(F), "linear": product}
    for name in ("_in_projection", "_in_projection_packed", "multi_head_attention_forward"):
        theirs = getattr(F, name)
        scope[name] = FunctionType(theirs.__code__, scope, name, theirs.__defaults__)
    return scope["multi_head_attention_forward"]
