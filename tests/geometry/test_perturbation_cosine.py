"""Do the weights hold a perturbation, and how are two changes compared?"""

import pytest
import torch

from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.perturb import Survival, check_held, spectral_ascent
from domainbed_sage.geometry.products import rounded


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
    [("fp64", 1.0, 1e-3), ("fp32", 1.0, 1e-3), ("bf16x3", 0.99, 1e-2), ("tf32", 0.25, 0.05), ("bf16", 0.085, 0.05)],
)
def test_how_much_of_the_papers_radius_a_matrix_product_sees(layer, precision, expected, tolerance):
    """Entries move by 5e-7, and a unit in the last place of 0.02 is 1.5e-5 in TF32. The guard looks at gradients."""
    (W,), (epsilon,) = layer
    seen = rounded(W + epsilon, precision) - rounded(W, precision)
    assert Survival.of((seen,), (epsilon,)).cosine == pytest.approx(expected, abs=tolerance)


def test_what_the_weights_hold_is_reported(layer):
    held = check_held(*layer, "SAGE")
    assert 0.999 < held.cosine <= 1
    assert held.size == pytest.approx(1, abs=1e-3)


def test_what_they_cannot_hold_is_refused():
    """1e-9 is below half a unit in the last place of 1."""
    lost = ((torch.ones(4, 4),), (torch.full((4, 4), 1e-9),))
    with pytest.raises(
        UserError, match=r"SAGE's perturbation is too small .* is 0\.000, and at least 0\.9 is required"
    ):
        check_held(*lost, "SAGE")
    assert check_held(*(tuple(t.double() for t in part) for part in lost), "SAGE").cosine > 0.99


def test_no_change_that_stays_none_is_kept():
    params = (torch.ones(4, 4),)
    assert check_held(params, (torch.zeros(4, 4),), "SAGE") == (1, 1)


def test_a_change_out_of_nothing_has_no_direction():
    cosine, size = Survival.of((torch.ones(3),), (torch.zeros(3),))
    assert cosine == 0
    assert size > 1e100


def test_comparison_is_over_all_tensors_together():
    """Two equal halves, of which one is lost: 1/√2 in direction and in size; and a change twice as large."""
    half = (torch.zeros(4, 4), torch.ones(16))
    whole = (torch.ones(4, 4), torch.ones(16))
    assert Survival.of(half, whole) == pytest.approx((0.5**0.5, 0.5**0.5), rel=1e-9)
    assert Survival.of(tuple(-2 * t for t in whole), whole) == pytest.approx((-1.0, 2.0), rel=1e-9)


def test_tiny_changes_are_compared_in_double_precision():
    tiny = torch.tensor([3e-30, 4e-30])
    assert Survival.of((tiny,), (2 * tiny,)) == pytest.approx((1.0, 0.5), rel=1e-6)
