"""Muon against its formula on one matrix at a time, which parameters it moves, and that it restarts exactly.

Its trajectory from the author's own code is among the goldens.
"""

import copy

import pytest
import torch
from torch import nn

from domainbed_sage.models.optimizers import optimizers

muon = optimizers["muon"]


def params(*shapes):
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]


def step(optimizer, params, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator)
    optimizer.step()
    return [p.detach().clone() for p in params]


def newton_schulz(G):
    X = G / (G.norm() + 1e-7)
    X = X.mT if len(G) > len(G.mT) else X
    for _ in range(5):
        A = X @ X.mT
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.mT if len(G) > len(G.mT) else X


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (9, 2), (4, 3, 2, 2)], ids=str)
def test_a_matrix_moves_by_its_formula(shape):
    W = params(shape)
    theirs, M = W[0].detach().clone().flatten(1), torch.zeros(shape, dtype=torch.float64).flatten(1)
    optimizer = muon(W, lr=0.1, weight_decay=0.3, momentum=0.8, muon_params="matrices")
    for seed in range(3):
        (ours,) = step(optimizer, W, seed)
        g = W[0].grad.flatten(1)
        M = 0.8 * M + 0.2 * g
        rows, columns = g.shape
        theirs = theirs * (1 - 0.1 * 0.3) - 0.1 * max(1, rows / columns) ** 0.5 * newton_schulz(0.2 * g + 0.8 * M)
        torch.testing.assert_close(ours.flatten(1), theirs, rtol=0, atol=1e-12)


def test_the_others_are_adamws():
    ours, theirs = (
        params((3, 2), (2,), (4, 4), (4, 4), (5, 4), (5,)),
        params((3, 2), (2,), (4, 4), (4, 4), (5, 4), (5,)),
    )
    one = muon(ours, aux_lr=0.1, aux_weight_decay=0.2, aux_beta1=0.7, aux_beta2=0.8, aux_eps=0.5)
    other = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.2, betas=(0.7, 0.8), eps=0.5)
    same = [torch.equal(a, b) for a, b in zip(step(one, ours), step(other, theirs), strict=True)]
    assert same == [True, True, False, False, True, True]  # hidden: the matrices but the first and the last


@pytest.mark.parametrize(("which", "moved"), [("hidden", [False] * 2), ("matrices", [True, False])])
def test_which_are_matrices(which, moved):
    ours = params((3, 2), (2,))
    groups = muon(ours, muon_params=which).param_groups
    by_muon = {id(p) for group in groups if "momentum" in group for p in group["params"]}
    assert [id(p) in by_muon for p in ours] == moved


def test_it_restarts_exactly():
    shapes = (4, 3), (3, 3), (3,), (2, 3)
    whole, parts = params(*shapes), params(*shapes)
    one = muon(whole)
    step(one, whole, 1)
    expected = step(one, whole, 2)
    first = muon(parts)
    step(first, parts, 1)
    saved = copy.deepcopy(first.state_dict())
    second = muon(parts)
    second.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(step(second, parts, 2), expected, strict=True))


def test_a_parameter_without_a_gradient_stays():
    ours = params((3, 3), (3, 3), (3, 3))
    optimizer, before = muon(ours, weight_decay=0.5, muon_params="matrices"), ours[1].detach().clone()
    for p in (ours[0], ours[2]):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(ours[1], before)
    optimizer.zero_grad()
    assert all(p.grad is None for p in ours)
