"""Vectors in weight space and ascent directions."""

import numpy as np
import pytest
import torch
from properties import assert_close, assert_same_bits
from torch.nn.functional import cosine_similarity

from domainbed_sage.geometry.perturb import l2_ascent_, spectral_ascent
from domainbed_sage.geometry.polar import polar_factor
from domainbed_sage.geometry.vectors import (
    LONGEST_DOT,
    _pieces,
    add_,
    add_noise_,
    agreement,
    dot,
    gram,
    in_own_memory,
    norm,
    pairwise_cosines,
    scale,
    scale_,
    weighted_mean_,
)


def gaussian(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a, b: scale_(3.0, a), lambda a, b: 3 * a),
        (lambda a, b: add_(a, b), lambda a, b: a + b),
        (lambda a, b: add_(a, b, -0.5), lambda a, b: a - b / 2),
        (lambda a, b: add_noise_(a, torch.tensor(0.1, dtype=torch.float64), torch.ones_like), lambda a, b: a + 0.1),
    ],
    ids=["scale_", "add_", "add_ scaled", "add_noise_"],
)
def test_operations_with_an_underscore_change_their_vector(change, expected):
    a, b = vectors(2)
    wanted, addresses, other = expected(flat(a), flat(b)), [t.data_ptr() for t in a], flat(b)
    result = change(a, b)
    assert_close(flat(a), wanted, 1e-14)
    assert [t.data_ptr() for t in result] == addresses
    assert_same_bits(flat(b), other)


@pytest.mark.parametrize("length", [1, LONGEST_DOT, LONGEST_DOT + 1, 2**16, 2**22])
def test_long_inner_products_are_accurate_in_single_precision(length):
    """Equal terms are all rounded the same way: in one sum of 2^22 of them BLAS is 3e-4 off."""
    a, b = torch.full((length,), 0.1), torch.full((length,), 1.1)
    assert_close(dot((a,), (b,)) / (a.double() @ b.double()), 1.0, 1e-5)


def test_what_autograd_shares_is_copied_before_it_is_changed():
    """Parameters that are added have one gradient tensor between them, parts of one have slices, sums are expanded."""
    p, q, r, s, t = (torch.ones(4, 3, requires_grad=True) for _ in range(5))
    x = gaussian(4, 3).float()
    loss = ((p + q) * x).sum() + r.sum() + (torch.cat([s, t]) * torch.cat([x, 2 * x])).sum()
    plain = torch.autograd.grad(loss, (p, q, r, s, t))
    expected = [g.clone() for g in plain]
    own = in_own_memory(plain, (p, q, r, s, t))
    for i, g in enumerate(own):
        g.mul_(10.0**i)
    for i, (g, wanted) in enumerate(zip(own, expected, strict=True)):
        assert_close(g, 10.0**i * wanted, 1e-2)
        assert g.stride() == p.stride()


def test_a_gradient_alone_in_its_memory_is_not_copied():
    g, p = gaussian(4, 3), gaussian(4, 3, seed=1)
    assert in_own_memory((g,), (p,))[0].data_ptr() == g.data_ptr()
    transposed = gaussian(3, 4).T
    (laid_out,) = in_own_memory((transposed,), (p,))
    assert laid_out.is_contiguous()
    assert_same_bits(laid_out, transposed.contiguous())


def test_a_gradient_that_requires_one_can_be_changed():
    """As PyTorch 2.9 materializes it for a parameter outside the loss."""
    (own,) = in_own_memory((torch.zeros(4, 3, requires_grad=True),), (gaussian(4, 3).float().requires_grad_(),))
    assert_same_bits(own.add_(1), torch.ones(4, 3))


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
    assert_close(flat(weighted_mean_(there, counts)), expected, 1e-15)


def test_weighted_mean_of_equal_counts_is_the_plain_mean_to_the_last_bit():
    there = [tuple(t.float() for t in v) for v in vectors(3)]
    plain = tuple((a + b + c) / 3 for a, b, c in zip(*there, strict=True))
    assert_same_bits(flat(weighted_mean_(there, (12, 12, 12))), flat(plain))


# Ascent directions.


def ascent(W, G, rho, **options):
    (epsilon,) = spectral_ascent((W,), (G,), rho, **options)
    return epsilon


def test_l2_ascent_has_length_rho_over_all_parameters_together():
    (g,) = vectors(1)
    direction = flat(g) / flat(g).norm()
    epsilon = l2_ascent_(g, 0.3)
    assert_close(norm(epsilon), 0.3, 1e-11)
    assert_close(flat(epsilon) / 0.3, direction, 1e-11)
    zero = scale(0.0, g)
    assert_same_bits(flat(l2_ascent_(zero, 0.3)).abs(), torch.zeros(11, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (4, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("scale_by_weight", [True, False])
def test_spectral_ascent_of_matrices(shape, scale_by_weight):
    """With the exact factor every singular value is ρ ‖W‖_F; without orthogonalisation the Frobenius norm is."""
    W, G, rho = gaussian(*shape), gaussian(*shape, seed=1), 0.02
    radius = rho * (W.norm() if scale_by_weight else 1.0)
    exact = ascent(W, G, rho, method="svd", scale_by_weight=scale_by_weight)
    assert exact.shape == shape
    sigma = torch.linalg.svdvals(exact.flatten(1))
    assert_close(sigma, radius * torch.ones_like(sigma), 1e-13)
    own_spectrum = ascent(W, G, rho, orthogonalize=False, scale_by_weight=scale_by_weight)
    assert_close(own_spectrum, radius * G / G.norm(), 1e-13)
    quintic = ascent(W, G, rho, steps=3, scale_by_weight=scale_by_weight)
    assert_close(quintic, radius * polar_factor(G.flatten(1), "quintic", 3).reshape(shape), 1e-13)


@pytest.mark.parametrize("shape", [(), (1,), (9,)], ids=str)
@pytest.mark.parametrize("ablation", [{}, {"orthogonalize": False}, {"scale_by_weight": False}], ids=str)
def test_spectral_ascent_of_vectors_and_scalars_has_length_rho(shape, ablation):
    W, G = 5 * gaussian(*shape), gaussian(*shape, seed=1)
    assert_close(ascent(W, G, 0.02, **ablation), 0.02 * G / G.norm(), 1e-15)


@pytest.mark.parametrize("shape", [(), (9,), (5, 7), (4, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("ablation", [{}, {"orthogonalize": False}, {"method": "cubic"}], ids=str)
def test_spectral_ascent_without_gradient_is_zero(shape, ablation):
    zero = torch.zeros(shape, dtype=torch.float64)
    assert_same_bits(ascent(gaussian(*shape), zero, 0.02, **ablation), zero)


@pytest.mark.parametrize(("length", "expected"), [(1e-13, 0.0), (1e-12, 0.0), (2e-12, 0.02)])
def test_vector_gradients_below_1e_12_count_as_zero(length, expected):
    g = torch.zeros(3, dtype=torch.float64)
    g[1] = length
    assert_close(ascent(gaussian(3), g, 0.02).norm(), expected, 1e-15)


def test_zero_weight_moves_by_the_smallest_radius():
    G = gaussian(3, 3)
    epsilon = ascent(torch.zeros_like(G), G, 0.5, method="svd")
    np.testing.assert_allclose(torch.linalg.svdvals(epsilon), 0.5e-12, rtol=1e-9)


def test_parameters_do_not_see_each_other_in_the_ascent():
    """All at once, in any order of vectors, matrices and tensors, is one by one."""
    shapes = [(3,), (4, 5), (), (2, 3, 2, 2), (4, 5), (5, 4), (7,), (4, 5)]
    weights = tuple(gaussian(*shape, seed=i) for i, shape in enumerate(shapes))
    gradient = tuple(gaussian(*shape, seed=10 + i) for i, shape in enumerate(shapes))
    for together, W, G in zip(spectral_ascent(weights, gradient, 0.02), weights, gradient, strict=True):
        assert_close(together, ascent(W, G, 0.02), 1e-15)
        assert together.shape == W.shape


def test_long_products_are_cut_on_the_processor_alone():
    for device, pieces in (("cpu", [LONGEST_DOT, 3]), ("meta", [LONGEST_DOT + 3])):
        vector = (torch.empty(LONGEST_DOT + 3, device=device), torch.empty(2, 2, device=device))
        assert [len(piece) for piece in _pieces(vector)] == [*pieces, 4]
