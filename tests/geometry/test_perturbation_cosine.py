"""Does a perturbation survive the precision of the matrix products?"""

import numpy as np
import pytest
import torch
from properties import assert_close, assert_same_bits

from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.perturb import check_perturbation_cosine, perturbation_cosine, rounded, spectral_ascent

PRECISIONS = ["fp64", "fp32", "tf32", "bf16"]
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


@pytest.mark.parametrize("precision", PRECISIONS)
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


def vit_layer():
    """A 768 x 768 weight as in a ViT, N(0, 0.02²), and SAGE's perturbation of it at the paper's ρ = 1e-6."""
    generator = torch.Generator().manual_seed(0)
    W = 0.02 * torch.randn(768, 768, generator=generator)
    return (W,), spectral_ascent((W,), (torch.randn(768, 768, generator=generator),), 1e-6)


@pytest.fixture(scope="module")
def layer():
    return vit_layer()


@pytest.mark.parametrize(
    ("precision", "expected", "tolerance"),
    [("fp64", 1.0, 1e-3), ("fp32", 1.0, 1e-3), ("tf32", 0.25, 0.05), ("bf16", 0.085, 0.05)],
)
def test_cosine_at_the_papers_radius(layer, precision, expected, tolerance):
    """Reduced precision drowns it: the entries move by 5e-7, a unit in the last place of 0.02 is 1.5e-5 in TF32."""
    assert_close(perturbation_cosine(*layer, precision), expected, tolerance)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_what_does_not_survive_is_refused(layer, precision):
    cosine = float(perturbation_cosine(*layer, precision))
    with pytest.raises(UserError) as caught:
        check_perturbation_cosine(*layer, precision, "SAGE")
    message = str(caught.value)
    assert message.startswith(f"SAGE's perturbation does not survive {precision} arithmetic")
    assert f"is {cosine:.3f}, and at least 0.9 is required" in message
    assert "--precision fp32 (with TF32 off), or a larger radius" in message


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_what_survives_is_reported(layer, precision):
    assert check_perturbation_cosine(*layer, precision, "SAGE") == float(perturbation_cosine(*layer, precision))


def test_larger_radius_survives_bf16(layer):
    params, epsilon = layer
    assert check_perturbation_cosine(params, (1000 * epsilon[0],), "bf16", "SAGE") > 0.99


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_perturbation_survives_and_a_lost_one_does_not(precision):
    params = (torch.ones(4, 4),)
    assert perturbation_cosine(params, (torch.zeros(4, 4),), precision) == 1
    assert (
        perturbation_cosine(params, (torch.full((4, 4), 1e-9),), precision) == 0
    )  # below half a unit in the last place of 1


def test_vectors_are_measured_in_their_own_precision():
    """Biases and gains enter no matrix product: 1e-5 is lost beside 1 in bf16, but it is added in fp32."""
    epsilon = 1e-5
    assert perturbation_cosine((torch.ones(4, 4),), (torch.full((4, 4), epsilon),), "bf16") == 0
    assert_close(perturbation_cosine((torch.ones(16),), (torch.full((16,), epsilon),), "bf16"), 1.0, 1e-6)


def test_cosine_is_over_all_parameters_together():
    """Two equal halves, of which bf16 swallows one: 1/√2."""
    params = (torch.ones(4, 4), torch.ones(16))
    epsilon = (torch.full((4, 4), 1e-4), torch.full((16,), 1e-4))
    assert_close(perturbation_cosine(params, epsilon, "bf16"), 0.5**0.5, 1e-3)
