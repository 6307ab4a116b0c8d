"""Polar factors: what every iteration does to the singular values, and that the fast ways are the literal ones."""

import math

import numpy as np
import pytest
import torch
from properties import assert_close, assert_same_bits
from torch.nn.functional import cosine_similarity
from torch.utils.flop_counter import FlopCounterMode

from domainbed_sage.geometry import polar
from domainbed_sage.geometry.polar import polar_factor, polar_factors
from domainbed_sage.geometry.polynomials import POLAR_EXPRESS, polynomials

SHAPES = [(6, 6), (9, 4), (4, 9), (1, 7), (7, 1), (1, 1)]
METHODS = ["quintic", "cubic", "polar_express", "svd", "svd_rank"]
SIGMA = [0.9, 0.5, 0.25, 0.1, 0.01]


def gaussian(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthogonal(n, seed=0):
    return torch.linalg.qr(gaussian(n, n, seed=seed)).Q


def scalar(method, steps, x):
    """What an iteration does to one singular value."""
    if method == "polar_express":
        for a, b, c in polynomials(method, steps):
            x = a * x + b * x**3 + c * x**5
        return x
    for _ in range(steps):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5 if method == "quintic" else 1.5 * x - 0.5 * x**3
    return x


@pytest.mark.parametrize("extra", [(0, 0), (3, 0), (0, 3)], ids=["square", "tall", "wide"])
@pytest.mark.parametrize(
    ("method", "steps"), [("quintic", 0), ("quintic", 1), ("quintic", 5), ("cubic", 5), ("polar_express", 9)]
)
def test_iterations_act_on_the_singular_values(method, steps, extra):
    """A diagonal matrix stays diagonal; each entry, divided by ‖G‖_F, follows the scalar polynomial."""
    n = len(SIGMA)
    G = torch.zeros(n + extra[0], n + extra[1], dtype=torch.float64)
    G[range(n), range(n)] = 3 * torch.tensor(SIGMA, dtype=torch.float64)
    length = 3 * math.sqrt(sum(s**2 for s in SIGMA)) + 1e-7
    expected = torch.zeros_like(G)
    expected[range(n), range(n)] = torch.tensor(
        [scalar(method, steps, 3 * s / length) for s in SIGMA], dtype=torch.float64
    )
    assert_close(polar_factor(G, method, steps), expected, 1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_svd_gives_orthonormal_rows_or_columns_and_a_positive_stretch(shape):
    """The polar factor's definition: Q Qᵀ = I (of the shorter side), and G = Q H with H positive semidefinite."""
    G = gaussian(*shape)
    Q = polar_factor(G, "svd")
    eye = torch.eye(min(shape), dtype=torch.float64)
    assert_close(Q @ Q.T if shape[0] <= shape[1] else Q.T @ Q, eye, 1e-13)
    H = Q.T @ G
    assert_close(H, H.T, 1e-13)
    assert torch.linalg.eigvalsh(H).min() > -1e-13


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transposition(method, shape):
    G = gaussian(*shape)
    assert polar_factor(G, method).shape == shape
    assert_close(polar_factor(G.T, method), polar_factor(G, method).T, 1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_orthogonal_changes_of_basis_pass_through(method, shape):
    G, U, V = gaussian(*shape), orthogonal(shape[0], 1), orthogonal(shape[1], 2)
    assert_close(polar_factor(U @ G @ V, method), U @ polar_factor(G, method) @ V, 1e-11)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scale_does_not_count(method, shape):
    """Up to the 1e-7 in the first division: it is 1e-9 of ‖G‖_F here, and an iteration stretches it 3.4445^5 times."""
    G = 100 * gaussian(*shape).sign() * (1 + gaussian(*shape, seed=1).abs())
    assert_close(polar_factor(1000 * G, method), polar_factor(G, method), 1e-9 * 3.4445**5)


@pytest.mark.parametrize("method", ["quintic", "cubic", "polar_express", "svd_rank"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zero_stays_zero(method, shape):
    zero = torch.zeros(shape, dtype=torch.float64)
    assert_same_bits(polar_factor(zero, method), zero)


@pytest.mark.parametrize("method", ["quintic", "cubic", "svd", "svd_rank"])
def test_one_row_becomes_a_unit_row(method):
    g = gaussian(1, 9)
    length = scalar(method, 5, 1.0) if method == "quintic" else 1.0
    assert_close(polar_factor(g, method), length * g / g.norm(), 1e-6)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)], ids=str)
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_cubic_tends_to_the_factor_of_the_range(shape, rank):
    """1.5 per step lifts σ/‖G‖ ≥ 0.1 to 1 within ten steps; the rest of thirty converges quadratically."""
    G = orthogonal(shape[0], 1)[:, :rank] @ torch.diag(torch.linspace(1, 0.3, rank).double())
    G = G @ orthogonal(shape[1], 2)[:rank]
    assert_close(polar_factor(G, "cubic", 30), polar_factor(G, "svd_rank"), 1e-9)
    assert_close(torch.linalg.matrix_norm(polar_factor(G, "svd_rank")) ** 2, rank, 1e-12)


def test_svd_of_a_matrix_short_of_full_rank_hangs_on_its_last_bits():
    """So SAGE_svd cannot repeat along a free run, while `svd_rank` can."""
    G = gaussian(16, 4) @ gaussian(4, 16, seed=1)
    nudged = G * (1 + 1e-15 * gaussian(16, 16, seed=2))
    change = {m: torch.linalg.matrix_norm(polar_factor(G, m) - polar_factor(nudged, m)) for m in ("svd", "svd_rank")}
    assert change["svd"] > 0.1
    assert change["svd_rank"] < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 40), (40, 6)], ids=str)
def test_svd_rank_takes_for_zero_what_is_within_the_rounding_of_the_largest(shape, dtype):
    """A singular value counts if it is above σ₁ ε times the longer side, as in NumPy's matrix_rank."""
    limit = max(shape) * torch.finfo(dtype).eps
    G = torch.zeros(shape, dtype=dtype)
    sigma = 8 * torch.tensor([1.0, 0.3, 2 * limit, 1.1 * limit, 0.9 * limit, 0.2 * limit], dtype=dtype)
    G[range(6), range(6)] = sigma  # the singular values are the entries, to the last bit
    expected = torch.zeros(shape, dtype=dtype)
    expected[range(4), range(4)] = 1
    assert_same_bits(polar_factor(G, "svd_rank").abs(), expected)
    assert np.linalg.matrix_rank(G.numpy()) == 4


def spectrum(kind, m, n):
    """A matrix of a random full spectrum, of rank 3, or with singular values from 1 down to 1e-6."""
    if kind == "rank 3":
        return gaussian(m, 3) @ gaussian(3, n, seed=1)
    if kind == "spread":
        return orthogonal(m, 1) @ torch.diag(torch.logspace(0, -6, m).double()) @ orthogonal(n, 2)[:m]
    return gaussian(m, n)


@pytest.mark.parametrize("kind", ["full", "rank 3", "spread"])
@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (32, 300), (300, 32), (1, 5)], ids=str)
@pytest.mark.parametrize("method", ["quintic", "cubic", "polar_express"])
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_gram_matrix_gives_the_literal_iteration(monkeypatch, kind, shape, method, steps):
    """`polar_factor` takes it for these shapes; the reference iterates on the matrix itself."""
    G = spectrum(kind, min(shape), max(shape))
    G = G if shape[0] <= shape[1] else G.T
    ours = {dtype: polar_factor(G.to(dtype), method, steps).double() for dtype in (torch.float64, torch.float32)}
    monkeypatch.setattr(polar, "GRAM_ASPECT", math.inf)
    expected = polar_factor(G, method, steps)
    length = torch.linalg.matrix_norm(expected)
    assert torch.linalg.matrix_norm(ours[torch.float64] - expected) <= 1e-11 * length
    limit = 3e-3 if method == "polar_express" else 1e-3
    assert torch.linalg.matrix_norm(ours[torch.float32] - expected) <= limit * length


def test_five_steps_on_a_square_gaussian_matrix():
    """What the numbers of steps give at ViT size, n = 768: σ_max/‖G‖_F is 2/√n, with 1 % fluctuation.

    Five cubic steps send 0.0722 to 0.508 and are nearly linear below: between 0.92 and 1 times 1.5^5 σ. By
    Pólya and Szegő's inequality the cosine to G is then at least 2 √0.92 / 1.92 = 0.9991. Muon's quintic brings
    the bulk into its band [0.68, 1.21] and half of the values above 0.85.
    """
    G = gaussian(768, 768).float()
    cubic, quintic = polar_factor(G, "cubic"), polar_factor(G, "quintic")
    start = torch.linalg.svdvals(G) / torch.linalg.matrix_norm(G)
    largest = torch.linalg.matrix_norm(cubic, 2)
    assert_close(largest, scalar("cubic", 5, 2 / math.sqrt(768)), 0.015)
    assert cosine_similarity(cubic.flatten(), G.flatten(), dim=0) >= 0.999
    sigma = torch.linalg.svdvals(quintic)
    assert_close(sigma, scalar("quintic", 5, start).sort(descending=True).values, 2e-4)
    assert 0.85 < sigma.median() < 0.97
    assert sigma.max() < 1.21
    assert (sigma > 0.68).float().mean() > 0.9


# Polar Express.


def test_each_polynomial_of_polar_express_leaves_the_smallest_worst_error():
    """The best one errs as far above 1 as below; from [1e-3, 1] on, the image of an interval is the next one."""
    low, high, errors = 1e-3, 1.0, []
    for a, b, c in POLAR_EXPRESS:
        x = torch.linspace(low, high, 100_001, dtype=torch.float64)
        y = a * x + b * x**3 + c * x**5
        assert_close(y.min() + y.max(), 2.0, 1e-11)
        low, high = float(y.min()), float(y.max())
        errors.append(high - 1)
    assert errors == sorted(errors, reverse=True)
    assert errors[4] < 0.13
    assert errors[-1] < 1e-8


def test_polar_express_is_nearer_to_the_factor_than_the_quintic_is():
    """At the same cost: on a spectrum from 1 to 1e-2 five steps leave a tenth of the error."""
    G = orthogonal(40, 1) @ torch.diag(torch.logspace(0, -2, 40).double()) @ orthogonal(40, 2)
    exact = polar_factor(G, "svd")
    error = {m: torch.linalg.matrix_norm(polar_factor(G, m) - exact) for m in ("quintic", "polar_express")}
    assert error["polar_express"] < error["quintic"] / 2
    assert torch.linalg.matrix_norm(polar_factor(G, "polar_express", 8) - exact) < 1e-6


# Speed changes nothing.


@pytest.mark.parametrize("aspect", [1, math.inf], ids=["on the Gram matrix", "on the matrix"])
@pytest.mark.parametrize("shape", [(30, 30), (30, 71), (71, 30), (33, 34)], ids=str)
@pytest.mark.parametrize("method", ["quintic", "cubic", "polar_express"])
def test_products_by_blocks_are_the_products(monkeypatch, method, shape, aspect):
    """Symmetric products of large matrices are made from their upper block rows; here of small ones too."""
    G = gaussian(*shape)
    monkeypatch.setattr(polar, "GRAM_ASPECT", aspect)
    whole = polar_factor(G, method)
    monkeypatch.setattr(polar, "BLOCKED_FROM", 2)
    assert_close(polar_factor(G, method), whole, 1e-11)


@pytest.mark.parametrize("blocked_from", [2, 512], ids=["by blocks", "whole"])
@pytest.mark.parametrize("limit", [1, 80, 10**6], ids=["one by one", "two at a time", "all at once"])
@pytest.mark.parametrize("method", METHODS)
def test_many_matrices_are_each_by_itself(monkeypatch, method, limit, blocked_from):
    """Whatever their shapes and order, however many of one shape are stacked, and however they are multiplied."""
    monkeypatch.setattr(polar, "BATCH_ON_CPU", limit)
    monkeypatch.setattr(polar, "BLOCKED_FROM", blocked_from)
    shapes = [(5, 8), (4, 3), (5, 8), (8, 5), (5, 8), (4, 3), (6, 6)]
    matrices = [gaussian(*shape, seed=i) for i, shape in enumerate(shapes)]
    clean = [G.clone() for G in matrices]
    for G, Q in zip(matrices, polar_factors(matrices, method), strict=True):
        assert_close(Q, polar_factor(G, method), 1e-11)
    for G, was in zip(matrices, clean, strict=True):
        assert_same_bits(G, was)
    assert polar_factors([], method) == []


def muon(G, dtype):
    """Muon's iteration as it stands in its code, in `dtype`."""
    X = (G / (G.norm() + 1e-7)).to(dtype)
    X = X.T if G.shape[0] > G.shape[1] else X
    for _ in range(5):
        A = X @ X.T
        B = -4.7750 * A + 2.0315 * A @ A
        X = 3.4445 * X + B @ X
    return (X.T if G.shape[0] > G.shape[1] else X).to(G.dtype)


@pytest.mark.parametrize("kind", ["full", "rank 3", "spread"])
@pytest.mark.parametrize("shape", [(96, 96), (64, 256), (256, 64), (64, 100)], ids=str)
@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_low_precision_is_about_as_far_off_as_muons_own(kind, shape, dtype, torch_dtype):
    """Of the exact iteration; with the restart and products by the Gram matrix beside Muon's plain iteration."""
    G = spectrum(kind, min(shape), max(shape))
    G = (G if shape[0] <= shape[1] else G.T).float()
    exact = muon(G.double(), torch.float64).float()
    ours, theirs = polar_factor(G, dtype=dtype), muon(G, torch_dtype)
    assert ours.dtype == torch.float32
    error = torch.linalg.matrix_norm(ours - exact)
    assert error <= 1.3 * torch.linalg.matrix_norm(theirs - exact)
    assert error > torch.linalg.matrix_norm(polar_factor(G) - exact)


@pytest.mark.parametrize("kind", ["full", "rank 3", "spread"])
@pytest.mark.parametrize("shape", [(96, 96), (64, 256), (256, 64), (64, 100)], ids=str)
@pytest.mark.parametrize("method", ["quintic", "polar_express"])
def test_products_of_parts_stay_near_the_exact_iteration(kind, shape, method, monkeypatch):
    """Between the iterations in full and in low precision, and far nearer than the latter."""
    G = spectrum(kind, min(shape), max(shape))
    G = (G if shape[0] <= shape[1] else G.T).float()
    monkeypatch.setattr(polar, "GRAM_ASPECT", math.inf)
    exact = polar_factor(G.double(), method)
    monkeypatch.undo()
    error = {d: torch.linalg.matrix_norm(polar_factor(G, method, dtype=d) - exact) for d in ("full", "bf16x3", "bf16")}
    assert error["full"] < error["bf16x3"] < error["bf16"] / 30
    assert error["bf16x3"] <= 4e-3 * torch.linalg.matrix_norm(exact)


@pytest.mark.parametrize("shape", [(8, 16), (12, 12), (3, 16, 8)], ids=str)
def test_every_product_is_one_of_parts(shape, monkeypatch):
    """With products of fp32 in their place it is the iteration in full precision, and no other product is made."""
    G = gaussian(*shape).float()
    monkeypatch.setattr(polar, "BLOCKED_FROM", 4)
    expected = polar_factor(G)
    monkeypatch.setattr(polar, "multiply", lambda a, b, precision: a @ b)
    monkeypatch.setattr(polar, "_matmul", None)
    assert_close(polar_factor(G, dtype="bf16x3"), expected, 1e-5)


def test_double_precision_is_not_cut():
    G = gaussian(8, 16)
    assert_close(polar_factor(G, dtype="bf16x3"), polar_factor(G), 1e-12)


@pytest.mark.parametrize("kind", ["full", "rank 3", "spread"])
@pytest.mark.parametrize(("method", "steps"), [("cubic", 30), ("polar_express", 8), ("polar_express", 12)])
@pytest.mark.parametrize(("dtype", "limit"), [("full", 5e-3), ("bf16x3", 5e-2), ("bf16", 0.5)])
def test_long_iterations_on_the_gram_matrix_stay_bounded(kind, method, steps, dtype, limit):
    """Without restarts, rounding turns some of A's smallest eigenvalues negative, and they grow beyond all bounds."""
    G = spectrum(kind, 64, 256)
    Q = polar_factor(G.float(), method, steps, dtype).double()
    U, sigma, Vh = torch.linalg.svd(G, full_matrices=False)
    seen = sigma > 1e-3 * sigma[0] if kind == "spread" else sigma > 1e-9 * sigma[0]
    along = torch.linalg.vecdot(U.mT[seen] @ Q, Vh[seen])  # how far each singular direction has come to 1
    assert (along - 1).abs().max() <= limit
    assert torch.linalg.matrix_norm(Q, 2) <= 1 + limit


# What it costs


def flops(shape, steps, method="quintic"):
    """Multiplications and additions of all products, without the norm."""
    with FlopCounterMode(display=False) as counter:
        polar_factor(torch.ones(shape), method, steps)
    return counter.get_total_flops()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (8, 40)])
def test_products_on_the_gram_matrix(shape, steps):
    """The long side takes part in two products; each step squares A, and A and Q move on where a step follows."""
    m, n = sorted(shape)
    assert flops(shape, steps) == 2 * 2 * m * m * n + 2 * m**3 * (steps + (steps - 1) + 2 * (steps - 1))


@pytest.mark.parametrize("shape", [(8, 15), (15, 8), (8, 8)])
def test_products_of_matrices_nearer_to_a_square(shape):
    m, n = sorted(shape)
    assert flops(shape, 3) == 3 * (2 * 2 * m * m * n + 2 * m**3)


def test_restarts_come_when_errors_could_have_grown_beyond_the_limit():
    schedule = [(10.0, 0.0, 0.0)] * 6  # by 100 a step; from 150 (low precision) or 1e5 (full) on a restart
    assert polar._restarts(schedule, "bf16") == polar._restarts(schedule, "fp16") == [2, 4]
    assert polar._restarts(schedule, "full") == [3]
    assert polar._restarts([(30**0.5, 0.0, 0.0)] * 6, "bf16x3") == [3]  # by 30; from 1e4 on
    assert polar._restarts([(30**0.5, 0.0, 0.0)] * 6, "full") == [4]


@pytest.mark.parametrize(("limit", "sizes"), [(100, [5]), (12, [2, 2, 1]), (11, [1] * 5), (3, [1] * 5)])
def test_as_many_matrices_are_stacked_as_the_device_takes(limit, sizes, monkeypatch):
    stacks = []

    def one(G, *_):
        stacks.append(G.shape[0] if G.ndim == 3 else 1)
        return G

    monkeypatch.setattr(polar, "polar_factor", one)
    for device, name, other in (
        ("cpu", "BATCH_ON_CPU", "BATCH_ON_DEVICE"),
        ("meta", "BATCH_ON_DEVICE", "BATCH_ON_CPU"),
    ):
        monkeypatch.setattr(polar, name, limit)
        monkeypatch.setattr(polar, other, 7)
        polar_factors([torch.ones(2, 3, device=device)] * 5)
        assert stacks == sizes
        stacks.clear()
