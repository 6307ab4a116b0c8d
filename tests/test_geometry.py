"""Vectors in weight space, polar factors, and ascent directions."""

import math

import numpy as np
import pytest
import torch
from properties import assert_close, assert_same_bits
from torch.nn.functional import cosine_similarity

from domainbed_sage.geometry import polar
from domainbed_sage.geometry.perturb import l2_ascent, spectral_ascent
from domainbed_sage.geometry.polar import polar_factor
from domainbed_sage.geometry.vectors import (
    agreement,
    combine,
    dot,
    gram,
    norm,
    pairwise_cosines,
    scale,
    weighted_mean,
)

SHAPES = [(6, 6), (9, 4), (4, 9), (1, 7), (7, 1), (1, 1)]
METHODS = ["quintic", "cubic", "svd", "svd_rank"]
SIGMA = [0.9, 0.5, 0.25, 0.1, 0.01]


def gaussian(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthogonal(n, seed=0):
    return torch.linalg.qr(gaussian(n, n, seed=seed)).Q


def flat(vector):
    return torch.cat([t.reshape(-1) for t in vector])


def vectors(count, seed=0):
    return [(gaussian(3, 2, seed=10 * seed + i), gaussian(4, seed=50 + i), gaussian(seed=90 + i)) for i in range(count)]


# Vectors.


def test_vector_operations_are_those_of_the_flat_vector():
    a, b = vectors(2)
    assert_close(dot(a, b), flat(a) @ flat(b), 1e-14)
    assert_close(norm(a), torch.linalg.norm(flat(a)), 1e-14)
    assert_close(flat(scale(3.0, a)), 3 * flat(a), 1e-14)
    assert_close(flat(combine(2.0, a, -0.5, b)), 2 * flat(a) - flat(b) / 2, 1e-14)


@pytest.mark.parametrize("K", [1, 2, 5])
def test_gram_and_cosines_equal_those_of_the_flat_vectors(K):
    there = vectors(K)
    matrix = torch.stack([flat(v) for v in there])
    assert_close(gram(there), matrix @ matrix.T, 1e-13)
    pairs = [(i, j) for i in range(K) for j in range(i + 1, K)]
    expected = [cosine_similarity(matrix[i], matrix[j], dim=0) for i, j in pairs]
    assert_close(pairwise_cosines(gram(there)), expected, 1e-14)
    assert_close(agreement(gram(there)), sum(expected) / len(expected) if pairs else 1.0, 1e-14)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-9, 1e-7])
def test_cosines_of_short_vectors_are_torchs(size):
    a, b = gaussian(5), size * gaussian(5, seed=1)
    expected = cosine_similarity(a, b, dim=0)
    assert_close(pairwise_cosines(gram([(a,), (b,)])), [expected], 1e-14)
    assert (expected.abs() < 0.2) == (size < 1e-8)  # shorter than 1e-8 counts as 1e-8 long


@pytest.mark.parametrize("K", [2, 3, 5])
def test_agreement_bounds(K):
    """1 for parallel vectors, 0 for orthogonal ones, -1/(K-1) for the corners of a simplex; always between."""
    corners = torch.eye(K, dtype=torch.float64) - 1 / K
    assert_close(agreement(gram([(row,) for row in corners])), -1 / (K - 1), 1e-14)
    assert_close(agreement(gram([(row,) for row in torch.eye(K).double()])), 0.0, 1e-14)
    parallel = gaussian(4)
    assert_close(agreement(gram([((k + 1) * parallel,) for k in range(K)])), 1.0, 1e-14)
    for seed in range(20):
        S = agreement(gram([(gaussian(K, seed=100 * seed + k),) for k in range(K)]))
        assert -1 / (K - 1) - 1e-12 <= S <= 1 + 1e-12


def test_agreement_does_not_see_lengths():
    there = vectors(4)
    longer = [scale(10.0**i, v) for i, v in enumerate(there)]
    assert_close(agreement(gram(longer)), agreement(gram(there)), 1e-14)


@pytest.mark.parametrize("counts", [(3, 3, 3), (1, 2, 4), (6, 4, 2), (5,), (1, 2, 3, 4, 5)], ids=str)
def test_weighted_mean(counts):
    there = vectors(len(counts))
    expected = sum(n * flat(v) for n, v in zip(counts, there, strict=True)) / sum(counts)
    assert_close(flat(weighted_mean(there, counts)), expected, 1e-15)


def test_weighted_mean_of_equal_counts_is_the_plain_mean_to_the_last_bit():
    there = [tuple(t.float() for t in v) for v in vectors(3)]
    plain = tuple((a + b + c) / 3 for a, b, c in zip(*there, strict=True))
    assert_same_bits(flat(weighted_mean(there, (12, 12, 12))), flat(plain))


# Polar factors.


def scalar(method, steps, x):
    """What an iteration does to one singular value."""
    for _ in range(steps):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5 if method == "quintic" else 1.5 * x - 0.5 * x**3
    return x


@pytest.mark.parametrize("extra", [(0, 0), (3, 0), (0, 3)], ids=["square", "tall", "wide"])
@pytest.mark.parametrize(("method", "steps"), [("quintic", 0), ("quintic", 1), ("quintic", 5), ("cubic", 5)])
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


@pytest.mark.parametrize("method", ["quintic", "cubic", "svd_rank"])
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


def spectrum(kind, m, n):
    """A matrix of a random full spectrum, of rank 3, or with singular values from 1 down to 1e-6."""
    if kind == "rank 3":
        return gaussian(m, 3) @ gaussian(3, n, seed=1)
    if kind == "spread":
        return orthogonal(m, 1) @ torch.diag(torch.logspace(0, -6, m).double()) @ orthogonal(n, 2)[:m]
    return gaussian(m, n)


@pytest.mark.parametrize("kind", ["full", "rank 3", "spread"])
@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (32, 300), (300, 32), (1, 5)], ids=str)
@pytest.mark.parametrize("method", ["quintic", "cubic"])
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
    assert torch.linalg.matrix_norm(ours[torch.float32] - expected) <= 1e-3 * length


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


# Ascent directions.


def test_l2_ascent_has_length_rho_over_all_parameters_together():
    (g,) = vectors(1)
    epsilon = l2_ascent(g, 0.3)
    assert_close(norm(epsilon), 0.3, 1e-11)
    assert_close(flat(epsilon) / 0.3, flat(g) / flat(g).norm(), 1e-11)
    zero = scale(0.0, g)
    assert_same_bits(flat(l2_ascent(zero, 0.3)), flat(zero))


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (4, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("scale_by_weight", [True, False])
def test_spectral_ascent_of_matrices(shape, scale_by_weight):
    """With the exact factor every singular value is ρ ‖W‖_F; without orthogonalisation the Frobenius norm is."""
    W, G, rho = gaussian(*shape), gaussian(*shape, seed=1), 0.02
    radius = rho * (W.norm() if scale_by_weight else 1.0)
    exact = spectral_ascent(W, G, rho, method="svd", scale_by_weight=scale_by_weight)
    assert exact.shape == shape
    sigma = torch.linalg.svdvals(exact.flatten(1))
    assert_close(sigma, radius * torch.ones_like(sigma), 1e-13)
    own_spectrum = spectral_ascent(W, G, rho, orthogonalize=False, scale_by_weight=scale_by_weight)
    assert_close(own_spectrum, radius * G / G.norm(), 1e-13)
    quintic = spectral_ascent(W, G, rho, steps=3, scale_by_weight=scale_by_weight)
    assert_close(quintic, radius * polar_factor(G.flatten(1), "quintic", 3).reshape(shape), 1e-13)


@pytest.mark.parametrize("shape", [(), (1,), (9,)], ids=str)
@pytest.mark.parametrize("ablation", [{}, {"orthogonalize": False}, {"scale_by_weight": False}], ids=str)
def test_spectral_ascent_of_vectors_and_scalars_has_length_rho(shape, ablation):
    W, G = 5 * gaussian(*shape), gaussian(*shape, seed=1)
    assert_close(spectral_ascent(W, G, 0.02, **ablation), 0.02 * G / G.norm(), 1e-15)


@pytest.mark.parametrize("shape", [(), (9,), (5, 7), (4, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("ablation", [{}, {"orthogonalize": False}, {"method": "cubic"}], ids=str)
def test_spectral_ascent_without_gradient_is_zero(shape, ablation):
    zero = torch.zeros(shape, dtype=torch.float64)
    assert_same_bits(spectral_ascent(gaussian(*shape), zero, 0.02, **ablation), zero)


@pytest.mark.parametrize(("length", "expected"), [(1e-13, 0.0), (1e-12, 0.0), (2e-12, 0.02)])
def test_vector_gradients_below_1e_12_count_as_zero(length, expected):
    g = torch.zeros(3, dtype=torch.float64)
    g[1] = length
    assert_close(spectral_ascent(gaussian(3), g, 0.02).norm(), expected, 1e-15)


def test_zero_weight_moves_by_the_smallest_radius():
    G = gaussian(3, 3)
    epsilon = spectral_ascent(torch.zeros_like(G), G, 0.5, method="svd")
    np.testing.assert_allclose(torch.linalg.svdvals(epsilon), 0.5e-12, rtol=1e-9)
