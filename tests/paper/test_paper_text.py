"""Statements of the text: Newton-Schulz iterations, noise, radius, and the costs of Appendix G."""

import math

import numpy as np
import pytest
import torch

from domainbed_sage.geometry.polar import polar_factor
from domainbed_sage.geometry.polynomials import CUBIC, MUON_QUINTIC
from domainbed_sage.paper import newton_schulz, text_claims
from domainbed_sage.paper.newton_schulz import apply, cosine, derivative


@pytest.fixture(scope="module")
def iterations():
    return {one.where: one for one in newton_schulz.findings(0)}


@pytest.mark.parametrize(("method", "coefficients"), [("cubic", CUBIC), ("quintic", MUON_QUINTIC)])
def test_singular_values_are_those_of_the_iterate(method, coefficients):
    G = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = np.linalg.svd(G.numpy(), compute_uv=False)
    ours = apply(sigma / np.linalg.norm(sigma), coefficients, 5)
    theirs = np.linalg.svd(polar_factor(G, method, 5).numpy(), compute_uv=False)
    assert np.sort(ours) == pytest.approx(np.sort(theirs), abs=1e-6)


def test_equation_7_converges_quadratically(iterations):
    assert iterations["Section 3.1, Eq. 7, order of convergence"].numbers["order"] == pytest.approx(2, abs=0.01)
    e = 1e-3
    assert 1 - apply(np.array([1 - e]), CUBIC, 1)[0] == pytest.approx(1.5 * e**2, rel=1e-3)


def test_small_singular_values_grow_by_one_half_a_step():
    assert apply(np.array([1e-6]), CUBIC, 5)[0] == pytest.approx(1.5**5 * 1e-6, rel=1e-6)


def test_muons_polynomial_does_not_converge(iterations):
    numbers = iterations["Section 3.1, Eq. 7 and Algorithm 1, line 16"].numbers
    assert numbers["one"] == pytest.approx(0.701)
    assert apply(np.array([numbers["fixed"]]), MUON_QUINTIC, 1)[0] == pytest.approx(numbers["fixed"])
    assert numbers["slope"] < -1
    assert derivative(1.0, CUBIC) == 0
    assert (numbers["low"], numbers["high"]) == (pytest.approx(0.68, abs=0.01), pytest.approx(1.13, abs=0.01))


@pytest.mark.parametrize(
    ("spectrum", "before", "cubic", "quintic"),
    [("a normal matrix", 0.848, 0.855, 0.98), ("singular values i^-1", 0.20, 0.38, 0.96)],
)
def test_five_steps_do_not_suffice(iterations, spectrum, before, cubic, quintic):
    numbers = iterations[f"Section 3.1, T = 5 of Eq. 7, {spectrum}"].numbers
    found = [numbers[name] for name in ("before", "cubic cosine", "quintic cosine")]
    assert found == pytest.approx([before, cubic, quintic], abs=0.006)
    assert numbers["steps needed"] > 15


def test_five_steps_on_a_normal_matrix_by_their_numbers(iterations):
    numbers = iterations["Section 3.1, T = 5 of Eq. 7, a normal matrix"].numbers
    assert numbers["cubic largest"] == pytest.approx(0.50, abs=0.02)
    assert numbers["cubic median"] == pytest.approx(0.22, abs=0.01)
    assert numbers["cubic norm"] == pytest.approx(0.26, abs=0.01)
    assert numbers["cubic 15 steps"] == pytest.approx(0.99, abs=0.01)
    assert numbers["quintic median"] == pytest.approx(0.90, abs=0.03)
    assert numbers["quintic largest"] == pytest.approx(1.20, abs=0.01)


def test_the_size_of_the_perturbation(iterations):
    numbers = iterations["Section 3.1, size of the perturbation"].numbers
    assert numbers["rank 1"] == pytest.approx(0.70, abs=0.005)
    assert numbers["root of 768"] == pytest.approx(27.7, abs=0.02)


def test_the_cosine_is_that_of_matrices():
    rng = np.random.default_rng(0)
    U, s, Vh = np.linalg.svd(rng.standard_normal((4, 3)), full_matrices=False)
    first, second = (U * s) @ Vh, (U * s**2) @ Vh
    literal = (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)
    assert cosine(s, s**2) == pytest.approx(literal)


@pytest.mark.parametrize("K", [2, 3, 4, 6])
def test_the_noise_is_largest_at_opposed_gradients(K):
    assert text_claims.least_agreement(K) == pytest.approx(-1 / (K - 1))
    g = np.random.default_rng(K).standard_normal((1000, K, 8))
    g /= np.linalg.norm(g, axis=-1, keepdims=True)
    S = (((g.sum(1)) ** 2).sum(-1) - K) / (K * (K - 1))
    assert S.min() >= text_claims.least_agreement(K)


def test_the_image_tower_is_the_one_of_clip():
    vectors = 12 * (4 * 768 + 2304 + 768 + 3072 + 768) + 5 * 768
    assert len(text_claims.MATRICES) == 51
    assert sum(m * n for m, n in text_claims.MATRICES) + vectors == 86_192_640


def test_costs_of_appendix_g():
    assert text_claims.pass_flops(12) == pytest.approx(1.26e12, rel=0.01)
    assert text_claims.pass_flops(36) == pytest.approx(3.8e12, rel=0.01)
    literal = 0.0
    for shape in text_claims.MATRICES:
        m, n = min(shape), max(shape)
        literal += 5 * (2 * m * n * m + 2 * m * m * m + 2 * m * m * n)  # X Xᵀ, its square, and the product with X
    assert text_claims.newton_schulz_flops(3) == pytest.approx(literal)
    assert text_claims.newton_schulz_flops(2) == 2 * text_claims.newton_schulz_flops(1)


def test_a_step_costs_more_than_twice_one_of_erm():
    share = text_claims.newton_schulz_flops(3) / text_claims.pass_flops(36)
    assert text_claims.step_cost(3, 36, joint=True) == pytest.approx((1 + 3 * 2 + 3) / 3 + share)
    assert text_claims.step_cost(3, 36, joint=False) == pytest.approx(2 + share)


@pytest.mark.parametrize(("text", "verdict"), [("78.9", "follows"), ("78.90", "follows"), ("78.8", "cannot follow")])
def test_a_quoted_number_is_that_of_the_table(monkeypatch, text, verdict):
    monkeypatch.setattr(text_claims, "QUOTED", (("X", "y", "table1", "SAGE (Ours)", "avg_printed", text),))
    (one,) = text_claims._quoted()
    assert (one.verdict, one.numbers) == (verdict, {"text": float(text), "table": 78.9})


def test_what_the_text_says_holds_or_does_not():
    verdicts = {one.where: one.verdict for one in text_claims.findings()}
    assert [verdict for where, verdict in verdicts.items() if where.startswith("Section 5.2")] == ["follows"] * 8
    assert {where for where, verdict in verdicts.items() if verdict == "does not hold"} == {
        "Section 3.1, one-dimensional parameters",
        "Section 3.2, noise scale β = γ (1 - S)",
        "Appendix G, products in a Newton-Schulz step",
        "Appendix G, cost of Newton-Schulz",
    }
    radius = next(one for one in text_claims.findings() if "one-dimensional" in one.where)
    assert radius.numbers["ratio"] == pytest.approx(math.sqrt(101))
