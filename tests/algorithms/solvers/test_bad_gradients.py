"""Zero, equal, opposite and non-finite gradients, and what is no input at all."""

import math

import pytest
import torch
from solver_cases import VARIANTS, combined, gaussian, solved, solver

from domainbed_sage.algorithms.solvers import Solver, Tasks, make_solver, register
from domainbed_sage.core.errors import UserError

COMBINING = [v for v in VARIANTS if v[0] not in ("SI", "RLW", "DWA", "UW", "FAMO", "LS")]


def rows_with_zero(K=3):
    J = gaussian(K, 20)
    J[1] = 0
    return J


def without_second(name, J, **hparams):
    left = J[[0, *range(2, len(J))]]
    return solved(name, left @ left.T, **hparams) @ left


@pytest.mark.parametrize("K", [2, 3, 6])
def test_zero_gradient(K):
    """MGDA does not move; IMTL-G, FairGrad and Nash-MTL leave the task out; CAGrad and PCGrad count it."""
    J = rows_with_zero(K)
    G, mean = J @ J.T, J.mean(0)
    assert (solved("MGDA", G) @ J).norm() <= 1e-7 * J.norm()
    for name in ("IMTL-G", "FairGrad", "Nash-MTL"):
        w = solved(name, G)
        assert w[1] == 0
        torch.testing.assert_close(w @ J, without_second(name, J), rtol=1e-12, atol=1e-12)
    if (J @ mean).min() >= 0:
        torch.testing.assert_close(solved("CAGrad", G) @ J * 1.16, mean, rtol=1e-12, atol=1e-12)
    made = solver("PCGrad", J)
    torch.manual_seed(0)
    assert combined(made, J).isfinite().all()


@pytest.mark.parametrize("K", [1, 3, 6])
@pytest.mark.parametrize(("name", "hparams"), COMBINING, ids=str)
def test_zero_gradients_alone(name, hparams, K):
    """Nothing moves, whatever the weights are: those of the authors' least squares have no equation to solve."""
    J = torch.zeros(K, 6, dtype=torch.float64)
    assert (combined(solver(name, J, **hparams), J) == 0).all()


@pytest.mark.parametrize("K", [2, 3, 6])
@pytest.mark.parametrize("name", ["MGDA", "IMTL-G", "CAGrad", "FairGrad", "Nash-MTL"])
def test_equal_gradients_get_equal_weights(name, K):
    w = solved(name, torch.full((K, K), 7.3, dtype=torch.float64))
    torch.testing.assert_close(w, w.mean().expand(K), rtol=1e-9, atol=0)
    assert w.min() > 0


def test_opposite_gradients():
    """MGDA, IMTL-G and PCGrad do not move; CAGrad goes with the longer one; FairGrad and Nash-MTL have no answer."""
    g = torch.tensor([3.0, 4.0, 0.0, 0.0], dtype=torch.float64)
    J = torch.stack([g, -2 * g])
    G = J @ J.T
    for name in ("MGDA", "IMTL-G"):
        assert (solved(name, G) @ J).norm() <= 1e-13
    assert combined(solver("PCGrad", J), J).norm() <= 1e-13
    torch.testing.assert_close(solved("CAGrad", G) @ J, (1 - 0.4) / 1.16 * J.mean(0), rtol=1e-12, atol=1e-12)
    for name in ("FairGrad", "Nash-MTL"):
        assert solved(name, G).isnan().all()


def test_opposite_gradients_and_a_third():
    """A convex combination vanishes, and the mean improves no task's loss less than the best: CAGrad takes it."""
    J = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(solved("CAGrad", J @ J.T) @ J * 1.16, J.mean(0), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize("K", [1, 3, 6])
@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=str)
def test_a_gradient_that_is_not_finite_is_never_hidden(name, hparams, K, bad):
    J = gaussian(K, 6)
    J[-1, 2] = bad
    assert not combined(solver(name, J, **hparams), J).isfinite().all()


def test_losses_without_a_logarithm():
    for name, losses in (("SI", [1.0, 0.0]), ("SI", [1.0, -1.0]), ("FAMO", [1.0, -1.0])):
        w = solver(name, gaussian(2, 4)).weights(torch.tensor(losses, dtype=torch.float64))
        assert w.isnan().any()
    w = solver("FAMO", gaussian(2, 4)).weights(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert w.tolist() == pytest.approx([1e-8, 1.0])


def test_interior_method_says_when_it_fails():
    """Eleven gradients in three dimensions, which cancel in many ways: the value is the dual's, or all are NaN."""
    found = 0
    for seed in range(12):
        J = gaussian(11, 3, seed=seed)
        w, g0 = solved("CAGrad", J @ J.T) * 1.16, J.mean(0)
        v = (w - 1 / 11) / (w - 1 / 11).sum()
        dual = (v @ J) @ g0 + 0.4 * g0.norm() * (v @ J).norm()
        assert w.isnan().all() or (J @ (w @ J)).min().item() == pytest.approx(dual.item(), rel=1e-6)
        found += bool(w.isfinite().all())
    assert found >= 4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Tasks(0, (torch.zeros(1),)), "at least one task. Found 0"),
        (lambda: Tasks(2, ()), "at least one shared parameter. Found 0"),
        (lambda: make_solver("CAGard", Tasks(2, (torch.zeros(1),))), "Did you mean 'CAGrad'"),
        (lambda: make_solver("CAGrad", Tasks(2, (torch.zeros(1),)), {"c": -1.0}), "'c' should be a finite number ≥ 0"),
        (lambda: make_solver("LS", Tasks(2, (torch.zeros(1),)), {"c": 1.0}), "'c' is not a hyperparameter here"),
        (lambda: combined(solver("MGDA", gaussian(2, 4)), gaussian(3, 4)), "MGDA was made for 2 tasks. Found 3"),
        (lambda: combined(solver("LS", gaussian(2, 4)), gaussian(2, 4), torch.ones(3)), "LS was made for 2 tasks"),
        (lambda: register("Half")(type("Half", (Solver,), {})), "subclass of Solver with all its methods"),
        (lambda: register("LS")(type(solver("LS", gaussian(2, 4)))), "registered twice"),
    ],
)
def test_what_is_no_input(make, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.").replace("'", ".")):
        make()
