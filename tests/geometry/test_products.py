"""Matrix products in bf16 parts and in emulated TF32: what they hold, their limits, and their gradients."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from properties import assert_same_bits

from domainbed_sage.geometry import products
from domainbed_sage.geometry.products import linear, multiply, rounded, split

PRECISIONS = ["fp64", "fp32", "tf32", "bf16"]
SPLIT = ["bf16x3", "bf16x6"]
ERROR = {"bf16x3": 3 * 2.0**-16, "bf16x6": 2.0**-22}  # of a product of two numbers, with that of the sums
BITS = {"tf32": 11, "bf16": 8}  # of the significand, with the leading one
SMALLEST = {"tf32": -136, "bf16": -133}  # exponent of the smallest subnormal number


def half_up(x):
    """Ties away from zero: what adding half a unit to the magnitude does."""
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def expected_rounding(x, precision):
    """Round to a multiple of the unit in the last place, found from the exponent."""
    if precision in ("fp64", "fp32"):
        return x
    _, exponent = np.frexp(x)
    unit = np.ldexp(1.0, np.maximum(exponent - BITS[precision], SMALLEST[precision]))
    to_whole = half_up if precision == "tf32" else np.rint  # rint: ties to even
    return to_whole(x / unit) * unit


def samples():
    """Numbers of many sizes, whole ones, and ties of every significand."""
    rng = np.random.default_rng(0)
    ties = [
        sign * (1 + n * 2.0 ** (1 - bits) + 2.0**-bits) for bits in (8, 11) for n in (0, 1, 2, 5) for sign in (1, -1)
    ]
    spread = rng.normal(size=2000) * 2.0 ** rng.integers(-13, 13, size=2000)
    return np.concatenate([spread, ties, [0.0, -0.0, 1.0, -2.0, 0.1, 65504.0]]).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounding_equals_a_numpy_reference(precision, dtype):
    x = samples()
    ours = rounded(torch.from_numpy(x).to(dtype), precision)
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours.double().numpy(), expected_rounding(x, precision))


@pytest.mark.parametrize("precision", [*PRECISIONS, *SPLIT])
def test_rounding_twice_is_rounding_once(precision):
    once = rounded(torch.from_numpy(samples()).float(), precision)
    assert_same_bits(rounded(once, precision), once)


def test_tf32_clears_the_low_thirteen_bits():
    bits = rounded(torch.from_numpy(samples()).float(), "tf32").view(torch.int32)
    assert (bits & 0x1FFF).count_nonzero() == 0
    assert (bits & 0x2000).count_nonzero() > 0


def test_fp64_is_left_alone_beyond_float32():
    x = torch.tensor([1 + 1e-15], dtype=torch.float64)
    assert_same_bits(rounded(x, "fp64"), x)


def matrices(m=5, k=40, n=7, size=1.0, seed=0, stack=()):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(*stack, m, k, generator=generator), torch.randn(*stack, k, n, generator=generator)
    return size * a, b


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_leave_a_half_unit_of_the_last(count):
    x = torch.from_numpy(samples()).float()
    parts = split(x, count)
    assert [p.dtype for p in parts] == [torch.bfloat16] * count
    assert_same_bits(parts[0], x.bfloat16())
    left = (x.double() - sum(p.double() for p in parts)).abs()
    assert (left <= x.double().abs() * 2.0 ** (-8 * count)).all()
    assert all((small.double().abs() <= 2.0**-8 * large.double().abs()).all() for large, small in pairwise(parts))


def test_three_parts_hold_every_bit():
    x = torch.from_numpy(samples()).float()
    assert torch.equal(sum(p.double() for p in split(x, 3)).float(), x)


def kept_pairs(a, b, count):
    """The sum of the products of parts whose places add up to less than the number of parts, in double precision."""
    left, right = ([p.double() for p in split(t, count)] for t in (a, b))
    return sum(p @ q for i, p in enumerate(left) for j, q in enumerate(right) if i + j < count)


def on_a_device(monkeypatch):
    """Take the way of a GPU; its products of bf16 with fp32 sums are those of fp32 here."""

    def product(a, b, out_dtype):
        assert (a.dtype, b.dtype, out_dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        return a.float() @ b.float()

    monkeypatch.setattr(products, "_on_cpu", lambda _: False)
    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(torch, "bmm", product)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("stack", [(), (3,)])
@pytest.mark.parametrize(("precision", "count"), [("bf16x3", 2), ("bf16x6", 3)])
def test_product_is_the_sum_of_the_kept_products_of_parts(precision, count, stack, device, monkeypatch):
    a, b = matrices(stack=stack)
    expected = kept_pairs(a, b, count)
    if device == "gpu":
        on_a_device(monkeypatch)
    ours = multiply(a, b, precision)
    assert ours.dtype == torch.float32
    scale = (a.double().abs() @ b.double().abs()) * 2.0**-22  # rounding of the sums
    assert ((ours.double() - expected).abs() <= scale).all()
    assert (
        (ours.double() - a.double() @ b.double()).abs() <= (a.double().abs() @ b.double().abs()) * ERROR[precision]
    ).all()


@pytest.mark.parametrize("precision", SPLIT)
def test_what_bf16_holds_is_multiplied_as_in_fp32(precision):
    x, w = (rounded(t, "bf16") for t in matrices(m=33, k=257, n=17))
    w, bias = w.mT.contiguous(), torch.randn(17)
    assert torch.equal(linear(x, w, precision=precision), F.linear(x, w))
    assert torch.equal(linear(x, w, bias, precision=precision), F.linear(x, w) + bias)


@pytest.mark.parametrize("precision", [*SPLIT, "tf32"])
def test_zeros_give_zeros(precision):
    a, b = matrices()
    assert not multiply(torch.zeros_like(a), b, precision).any()
    assert not multiply(a, torch.zeros_like(b), precision).any()


@pytest.mark.parametrize("precision", SPLIT)
@pytest.mark.parametrize("size", [1e30, 1e36, 1e-20, 1e-30])
def test_large_and_small_numbers(precision, size):
    """Nothing overflows, and nothing of a product is lost, down to 1e-30."""
    a, b = matrices(size=size)
    error = (multiply(a, b, precision).double() - a.double() @ b.double()).abs()
    assert (error <= (a.double().abs() @ b.double().abs()) * ERROR[precision]).all()


def test_below_1e_33_parts_run_out_of_bits():
    """What is lost of a number is at most half of bf16's smallest, 2⁻¹³⁴; subnormal numbers do not become zero."""
    x = torch.tensor([1e-35, 1.1754944e-38, 1e-39, 3e-41, 1e-45])
    left = (x.double() - rounded(x, "bf16x3").double()).abs()
    assert (left <= torch.maximum(x.double() * 2.0**-16, torch.tensor(2.0**-134, dtype=torch.float64))).all()
    assert rounded(x, "bf16x3")[:3].all()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 3.4e38])
def test_what_bf16_cannot_hold_is_no_number_that_looks_right(value):
    a, b = matrices()
    a[0, 0] = value
    product = multiply(a, b, "bf16x3")
    assert not product[0].isfinite().any()
    assert product[1:].isfinite().all()


def gradients(x, w, bias, product, order):
    """Gradients of order 1, or of the squared length of those of order 1."""
    inputs = [t.clone().requires_grad_() for t in (x, w, bias)]
    loss = product(*inputs).square().square().mean()
    first = torch.autograd.grad(loss, inputs, create_graph=True)
    return first if order == 1 else torch.autograd.grad(sum(g.square().sum() for g in first), inputs)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("precision", "error"), [("bf16x3", 3e-5), ("bf16x6", 1e-6), ("tf32", 3e-3)])
def test_gradients_and_their_gradients(precision, error, order):
    x, w = matrices(m=6, k=48, n=10)
    x, w, bias = x.reshape(2, 3, 48), w.mT.contiguous(), torch.randn(10)
    ours = gradients(x, w, bias, lambda *args: linear(*args, precision=precision), order)
    for a, b in zip(ours, gradients(x.double(), w.double(), bias.double(), F.linear, order), strict=True):
        assert a.shape == b.shape
        assert (a.double() - b).norm() <= error * b.norm()


def test_gradients_are_computed_from_parts_as_well():
    """A backward pass in fp32 would be nearer."""
    x, w = matrices(m=64, k=64, n=64)
    g = torch.randn(64, 64, generator=torch.Generator().manual_seed(3))
    inputs = [x.requires_grad_(), w.requires_grad_()]
    of_x, of_w = torch.autograd.grad(linear(*inputs, precision="tf32"), inputs, g)
    assert_same_bits(of_x, (rounded(g, "tf32") @ rounded(w, "tf32")).detach())
    assert_same_bits(of_w, (rounded(g.mT, "tf32") @ rounded(x.mT, "tf32").mT).detach())


def test_only_the_gradients_that_are_asked_for_are_computed(monkeypatch):
    made = []
    real = products.multiply
    monkeypatch.setattr(products, "multiply", lambda *args: made.append(1) or real(*args))
    x, w = matrices(n=40)
    linear(x, w.requires_grad_(), precision="bf16x3").sum().backward()
    assert len(made) == 2


def test_double_is_left_alone():
    x, w = (t.double() for t in matrices(n=40))
    assert torch.equal(linear(x, w, precision="bf16x3"), F.linear(x, w))
