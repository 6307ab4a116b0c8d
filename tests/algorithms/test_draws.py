"""The numbers that an update draws: PyTorch's own by default, and what their names promise."""

import pytest
import torch

from domainbed_sage.algorithms.draws import Draws


def test_tensors_are_pytorchs_own():
    like = torch.zeros(3, 2, dtype=torch.float64)
    for ours, theirs in ((Draws().normal, torch.randn_like), (Draws().uniform, torch.rand_like)):
        torch.manual_seed(1)
        drawn = ours("xi", like)
        torch.manual_seed(1)
        assert torch.equal(drawn, theirs(like))
        assert drawn.dtype == torch.float64


@pytest.mark.parametrize("alpha", [0.05, 0.5, 2.0])
def test_beta_has_its_mean_and_variance(alpha):
    torch.manual_seed(0)
    drawn = torch.tensor(Draws().beta("lam", alpha, 20_000))
    assert drawn.shape == (20_000,)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_permutations_are_all_equally_likely():
    torch.manual_seed(0)
    drawn = [tuple(Draws().permutation("perm", 3)) for _ in range(3000)]
    assert set(drawn) == {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    assert all(drawn.count(p) == pytest.approx(500, abs=100) for p in set(drawn))


def test_sorting_keeps_the_order_of_equals():
    assert Draws().sort("order", torch.tensor([2, 0, 1, 0, 2, 0])).tolist() == [1, 3, 5, 2, 0, 4]


def test_groups_are_shuffled_among_themselves():
    groups = torch.tensor([0, 0, 0, 1, 2, 2, 344, 344])
    torch.manual_seed(0)
    drawn = torch.stack([Draws().within("perm", groups) for _ in range(200)])
    assert torch.equal(groups[drawn], groups.expand(200, -1))
    assert torch.equal(drawn.sort(1).values, torch.arange(8).expand(200, -1))
    assert len({tuple(row[:3].tolist()) for row in drawn}) == 6
    assert len({tuple(row[6:].tolist()) for row in drawn}) == 2
