"""Zero, equal, opposite and non-finite gradients, and what is no input at all."""

import math

import numpy as np
import pytest
import torch
from solver_cases import VARIANTS, combined, gaussian, solved, solver

from domainbed_sage.algorithms.solvers import Solver, Tasks, authors, make_solver, register, solvers
from domainbed_sage.algorithms.solvers.graddrop import kept_signs
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


@pytest.mark.parametrize("alpha", [0.5, 2.0, 10.0])
def test_fair_weights_of_gradients_that_cancel_are_none(alpha):
    """A convex combination of eleven gradients in two dimensions vanishes: the steps end at large finite numbers."""
    J = gaussian(11, 2)
    assert solved("FairGrad", J @ J.T, alpha=alpha).isnan().all()


@pytest.mark.parametrize("seed", [1, 4, 5, 6])
def test_six_gradients_that_cancel(seed):
    """A convex combination of them vanishes: MGDA does not move, and this is no failure of its method."""
    J = gaussian(6, 2, seed=seed)
    assert (solved("MGDA", J @ J.T) @ J).norm() <= 1e-12


@pytest.mark.parametrize(
    ("G", "share"), [([[3, 3], [3, 3]], 0.999), ([[1, 1], [1, 4]], 0.999), ([[4, 1], [1, 1]], 0.001)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_authors_take_the_bound_where_a_gradient_is_the_shortest_vector(G, share, dtype):
    """Two equal ones, and one that is orthogonal to the way to the other."""
    G = torch.tensor(G, dtype=dtype)
    torch.testing.assert_close(authors.min_norm(G), torch.tensor([share, 1 - share], dtype=dtype))
    assert authors.fair_least_squares(G, 2.0, samo=False).dtype == dtype


def test_authors_end_a_line_after_its_step_where_no_weight_can_fall():
    """From (½, ½, 0) along (0.3, 0.1, -0.4): (0.8, 0.6, -0.4), whose nearest point of the simplex is (0.6, 0.4, 0)."""
    found = authors._along(np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.0, -0.5]))
    assert found == pytest.approx([0.6, 0.4, 0.0])


def test_cagrad_takes_the_mean_where_three_gradients_cancel():
    """In two dimensions, up to rounding, which has no direction: nothing in the large ball improves all three."""
    cancelling = [
        J for seed in range(40) if (solved("MGDA", (J := gaussian(3, 2, seed=seed)) @ J.T) @ J).norm() < 1e-12
    ]
    assert len(cancelling) > 5
    for J in cancelling:
        torch.testing.assert_close(solved("CAGrad", J @ J.T, c=1.5) @ J * 3.25, J.mean(0), rtol=1e-7, atol=1e-7)


def test_signs_that_weigh_what_was_drawn_are_both_dropped():
    rows = torch.tensor([[3.0, -1.0, 1.0], [-3.0, -1.0, 1.0]], dtype=torch.float64)
    P = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
    assert kept_signs(rows, P)[0] == 0
    assert kept_signs(rows, P - 0.1).tolist() == [3, -2 * 0, 2]
    assert kept_signs(rows, P + 0.1).tolist() == [-3, -2, 0]
    small = torch.tensor([[1e-8]], dtype=torch.float64)  # P = ¾
    assert [kept_signs(small, torch.tensor([U])).item() for U in (0.74, 0.76)] == [1e-8, 0]


def test_losses_without_a_logarithm():
    for name, losses in (("SI", [1.0, 0.0]), ("SI", [1.0, -1.0]), ("FAMO", [1.0, -1.0])):
        w = solver(name, gaussian(2, 4)).weights(torch.tensor(losses, dtype=torch.float64))
        assert w.isnan().any()
    w = solver("FAMO", gaussian(2, 4)).weights(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert w.tolist() == pytest.approx([1e-8, 1.0])


@pytest.mark.parametrize(("K", "n"), [(11, 3), (40, 2)])
def test_interior_method_says_when_it_fails(K, n):
    """Many gradients in few dimensions, which cancel in many ways: the value is the dual's, or all are NaN."""
    found = 0
    for seed in range(12):
        J = gaussian(K, n, seed=seed)
        w, g0 = solved("CAGrad", J @ J.T) * 1.16, J.mean(0)
        v = (w - 1 / K) / (w - 1 / K).sum()
        dual = (v @ J) @ g0 + 0.4 * g0.norm() * (v @ J).norm()
        assert w.isnan().all() or (J @ (w @ J)).min().item() == pytest.approx(dual.item(), rel=1e-6)
        found += bool(w.isfinite().all())
    assert found >= 4


@pytest.mark.parametrize("name", list(solvers))
def test_there_is_a_loss_and_a_gradient_for_every_task(name):
    made = solver(name, gaussian(2, 4))
    for J, losses in ((gaussian(3, 4), torch.ones(2)), (gaussian(2, 4), torch.ones(3))):
        with pytest.raises(UserError, match=f"{name} was made for 2 tasks. Found 3"):
            combined(made, J, losses)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Tasks(0, (torch.zeros(1),)), "at least one task. Found 0"),
        (lambda: Tasks(2, ()), "at least one shared parameter. Found 0"),
        (lambda: make_solver("CAGard", Tasks(2, (torch.zeros(1),))), "Did you mean 'CAGrad'"),
        (lambda: make_solver("CAGrad", Tasks(2, (torch.zeros(1),)), {"c": -1.0}), "'c' should be a finite number ≥ 0"),
        (lambda: make_solver("LS", Tasks(2, (torch.zeros(1),)), {"c": 1.0}), "'c' is not a hyperparameter here"),
        (lambda: make_solver("MoCo", Tasks(2, (torch.zeros(1),)), {"moco_beta": 1.5}), "'moco_beta' should be"),
        (lambda: register("Half")(type("Half", (Solver,), {})), "subclass of Solver with all its methods"),
        (lambda: register("LS")(type(solver("LS", gaussian(2, 4)))), "registered twice"),
    ],
)
def test_what_is_no_input(make, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.").replace("'", ".")):
        make()
