"""What holds for every solver, and the conditions that define the exact solutions."""

import math

import pytest
import torch
from solver_cases import VARIANTS, combined, flat, gaussian, solved, solver, vectors

from domainbed_sage.algorithms.solvers import Tasks, make_solver, simplex, solvers
from domainbed_sage.algorithms.solvers.base import solver_hparams
from domainbed_sage.algorithms.solvers.fairgrad import fair_weights

OF_GRAM = [v for v in VARIANTS if v[0] in ("MGDA", "IMTL-G", "CAGrad", "Nash-MTL", "FairGrad") and v[1] != {"c": 0.0}]
EXACT_ONES = [v for v in OF_GRAM if "solution" not in v[1]]


def conflicting(K, n=60, seed=0):
    J = gaussian(K, n, seed=seed)
    return J - 0.9 * J.mean(0)


ROWS = {
    "gaussian": lambda K, n=60, seed=0: gaussian(K, n, seed=seed),
    "conflicting": conflicting,
    "alike": lambda K, n=60, seed=0: 0.3 * gaussian(K, n, seed=seed) + gaussian(n, seed=99),
    "spread": lambda K, n=60, seed=0: (
        gaussian(K, n, seed=seed) * torch.logspace(-6, 0, K, dtype=torch.float64)[:, None]
    ),
    "pairs of equals": lambda K, n=60, seed=0: gaussian((K + 1) // 2, n, seed=seed).repeat(2, 1)[:K],
}


def test_all_rows_of_table_2_are_there():
    names = "LS SI RLW DWA UW MGDA PCGrad GradDrop IMTL-G CAGrad MoCo Nash-MTL FAMO FairGrad"
    assert set(names.split()) == set(solvers) == {name for name, _ in VARIANTS}


@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=str)
def test_one_task_gets_its_own_direction(name, hparams):
    J, losses = gaussian(1, 8), torch.tensor([2.0], dtype=torch.float64)
    d, g = combined(solver(name, J, **hparams), J, losses), J[0]
    factor = {
        "SI": 1 / 2,
        "UW": 1 / 2,
        "CAGrad": (1 + hparams.get("c", 0.4)) / (1 + hparams.get("c", 0.4) ** 2),
        "MoCo": 0.5 * 2 / g.norm(),
        "Nash-MTL": 1 / g.norm(),
        "FairGrad": g.norm() ** (-2 * hparams.get("alpha", 2) / (1 + hparams.get("alpha", 2))),
    }
    tolerance = 1e-8 if hparams.get("solution") == "authors" else 1e-7 if name in ("GradDrop", "MoCo") else 1e-14
    torch.testing.assert_close(d, factor.get(name, 1) * g, rtol=tolerance, atol=0)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("K", [2, 4, 6])
@pytest.mark.parametrize(("name", "hparams"), EXACT_ONES, ids=str)
def test_order_of_tasks_does_not_matter(name, hparams, K, kind):
    J = ROWS[kind](K)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(1))
    w = solved(name, J @ J.T, **hparams)
    permuted = solved(name, J[order] @ J[order].T, **hparams)
    if kind != "pairs of equals":  # they share their weight as rounding wills
        assert ((w[order] - permuted) / w.abs().max()).abs().max() <= 1e-9
    assert (permuted @ J[order] - w @ J).norm() <= 1e-9 * (w @ J).norm()


@pytest.mark.parametrize(("name", "K"), [("LS", 3), ("GradDrop", 4), ("MoCo", 3), ("PCGrad", 2)])
def test_order_of_tasks_does_not_matter_to_vectors(name, K):
    """With equal draws; PCGrad draws an order, which says nothing of two tasks."""
    J, losses = conflicting(K), gaussian(K).exp()
    found = []
    for rows in (torch.arange(K), torch.arange(K).roll(1)):
        torch.manual_seed(0)
        found.append(combined(solver(name, J), J[rows], losses[rows]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["gaussian", "conflicting", "spread"])
@pytest.mark.parametrize(
    ("name", "hparams", "K"),
    [
        *[(name, {}, K) for name in ("MGDA", "FairGrad", "Nash-MTL") for K in (2, 3, 6)],
        *[("CAGrad", {"c": 1.0}, K) for K in (2, 3, 6)],
        ("PCGrad", {}, 2),
    ],
    ids=str,
)
def test_no_task_gets_worse(name, hparams, K, kind):
    """To first order: ⟨d, g_k⟩ ≥ 0 for all k."""
    J = ROWS[kind](K)
    d = combined(solver(name, J, **hparams), J)
    assert (J @ d).min() >= -1e-9 * d.norm() * J.norm(dim=1).max()


def test_which_solvers_may_make_a_task_worse():
    """LS, CAGrad with a small ball, PCGrad with three tasks."""
    J = torch.tensor([[4.0, 0.0], [-1.0, 0.2]], dtype=torch.float64)
    for name, hparams in (("LS", {}), ("CAGrad", {"c": 0.1})):
        assert (J @ combined(solver(name, J, **hparams), J)).min() < 0
    torch.manual_seed(0)
    J = conflicting(3)
    assert min((J @ combined(solver("PCGrad", J), J)).min() for _ in range(4)) < 0


@pytest.mark.parametrize("name", ["LS", "PCGrad"])
def test_linear_in_the_lengths_of_the_gradients(name):
    """The directions of gradients with lengths a and b, as one with lengths a + b, in the same order of tasks."""
    J = conflicting(3)
    a, b = gaussian(3, seed=1).exp(), gaussian(3, seed=2).exp()
    found = []
    for lengths in (a, b, a + b):
        torch.manual_seed(0)
        found.append(combined(solver(name, J), lengths[:, None] * J))
    torch.testing.assert_close(found[0] + found[1], found[2], rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [1e-4, 1e2])
@pytest.mark.parametrize("K", [3, 6])
@pytest.mark.parametrize(("name", "hparams"), EXACT_ONES, ids=str)
def test_scale_of_all_gradients(name, hparams, K, size):
    """Weights do not depend on it, but those of FairGrad, which shrink by a power."""
    G = (J := gaussian(K, 60)) @ J.T
    alpha = 1.0 if name == "Nash-MTL" else hparams.get("alpha", 2.0)
    factor = size ** (-2 * alpha / (1 + alpha)) if name in ("Nash-MTL", "FairGrad") else 1
    scaled = solved(name, size**2 * G, **hparams)
    torch.testing.assert_close(scaled, factor * solved(name, G, **hparams), rtol=1e-11, atol=1e-11 * factor)


def test_nash_does_not_depend_on_the_scale_of_each_gradient():
    J, sizes = gaussian(3, 60), torch.tensor([1e-3, 1.0, 50.0], dtype=torch.float64)
    scaled = sizes[:, None] * J
    d, d_scaled = (solved("Nash-MTL", rows @ rows.T) @ rows for rows in (J, scaled))
    torch.testing.assert_close(d, d_scaled, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("K", [2, 3, 4, 5, 40])
def test_conditions_of_the_optimum(K, kind):
    """MGDA: ⟨d, g_k⟩ ≥ |d|². CAGrad: in the ball, no better corner. FairGrad and Nash: the equation itself."""
    J = ROWS[kind](K, 200)
    G = J @ J.T
    w = solved("MGDA", G)
    assert w.min() >= 0
    assert w.sum().item() == pytest.approx(1, abs=1e-14)
    square = w @ G @ w
    assert (G @ w).min() >= square - 1e-12 * (square + 1e-3 * G.diagonal().max())
    d, g0 = solved("CAGrad", G) @ J * (1 + 0.4**2), J.mean(0)
    assert (d - g0).norm() <= 0.4 * g0.norm() * (1 + 1e-12)
    w = lowest(G, 0.4)
    bound = (w @ G).mean() + 0.4 * g0.norm() * (w @ J).norm()
    torch.testing.assert_close((J @ d).min(), bound, rtol=1e-8, atol=0)
    for alpha in (0.5, 1.0, 2.0, 10.0):
        w = fair_weights(G, alpha)
        residual = ((G @ w) * w ** (1 / alpha) - 1).abs().max()
        assert residual <= 1e-9
    u = J / J.norm(dim=1, keepdim=True)
    if kind in ("gaussian", "alike", "spread"):
        projections = u @ (solved("IMTL-G", G) @ J)
        torch.testing.assert_close(projections, projections.mean().expand(K), rtol=1e-8, atol=0)


def lowest(G, c):
    """The w in the simplex from which CAGrad makes its weights."""
    w = solved("CAGrad", G, c=c) * (1 + c**2) - 1 / len(G)
    return w / w.sum()


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("K", [2, 3, 4])
def test_faces_and_the_interior_method_agree(K, kind, monkeypatch):
    """Up to four rows both are there."""
    J = ROWS[kind](K)
    G = J @ J.T
    exact = [solved(name, G) @ J for name in ("MGDA", "CAGrad")]
    monkeypatch.setattr(simplex, "ENUMERATED", 0)
    for one, name in zip(exact, ("MGDA", "CAGrad"), strict=True):
        assert (solved(name, G) @ J - one).norm() <= 1e-11 * one.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=str)
def test_results_have_the_precision_of_the_gradients_and_their_memory(name, hparams, dtype):
    J = gaussian(3, 8).to(dtype)
    made, rows = solver(name, J, **hparams), vectors(J)
    direction, w = made.combine(torch.ones(3, dtype=dtype), rows)
    assert [t.dtype for t in direction] == [dtype, dtype]
    assert [t.data_ptr() for t in direction] == [t.data_ptr() for t in rows[0]]
    assert w is None or w.dtype == dtype


@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=str)
def test_no_value_is_read(name, hparams):
    """On the meta device there is none; the authors' own routines say what they would return."""
    shared = (torch.empty(3, 2, device="meta"), torch.empty(4, device="meta"))
    for K in (3, 6):
        made = make_solver(name, Tasks(K, shared), hparams)
        rows = [tuple(torch.empty_like(t) for t in shared) for _ in range(K)]
        direction = made.finished_(made.combine(torch.empty(K, device="meta"), rows).direction)
        made.stepped(torch.empty(K, device="meta"))
        made.epoch_ended()
        assert [t.shape for t in direction] == [t.shape for t in shared]


def test_clipping_shortens_alone():
    made = solver("PCGrad", gaussian(2, 4), max_norm=3.0)
    short, long = (torch.tensor([0.0, 2.0]),), (torch.tensor([30.0, 40.0]),)
    assert flat(made.finished_(short)).tolist() == [0.0, 2.0]
    assert flat(made.finished_(long)).tolist() == pytest.approx([1.8, 2.4], rel=1e-6)
    assert math.isinf(solver("MGDA", gaussian(2, 4)).max_norm)
    assert flat(solver("MGDA", gaussian(2, 4)).finished_((torch.tensor([30.0]),))).tolist() == [60.0]


CLIPPED = {"max_norm": 1.0}
DEFAULTS = {
    "LS": {"mean": False},
    "SI": {},
    "RLW": {},
    "DWA": {"temp": 2.0, "reading": "window", "iteration_window": 25},
    "UW": {"method_params_lr": 0.025},
    "MGDA": {"solution": "exact", "times_k": True},
    "PCGrad": CLIPPED,
    "GradDrop": CLIPPED,
    "IMTL-G": {},
    "CAGrad": {"c": 0.4, **CLIPPED},
    "MoCo": {"moco_beta": 0.5, "moco_beta_sigma": 0.5, "moco_gamma": 0.1, "moco_gamma_sigma": 0.5, "moco_rho": 0.0},
    "Nash-MTL": CLIPPED,
    "FAMO": {"famo_w_lr": 0.025, "famo_gamma": 0.001},
    "FairGrad": {"alpha": 2.0, **CLIPPED, "solution": "exact"},
}


def test_hyperparameters_are_those_of_the_authors():
    assert {name: solver_hparams(name) for name in solvers} == DEFAULTS


def test_what_authors_do_with_heads_and_lengths():
    made = {name: solver(name, gaussian(2, 4)) for name in solvers}
    plain = {"PCGrad", "GradDrop", "CAGrad", "MoCo", "FairGrad"}
    assert {name for name, one in made.items() if one.heads == "plain"} == plain
    assert {name for name, one in made.items() if one.factor_k} == {"MGDA", "CAGrad", "FairGrad"}
    clipped = {name for name, hparams in DEFAULTS.items() if "max_norm" in hparams}
    assert {name for name, one in made.items() if one.max_norm == 1} == clipped
    assert all(solver(name, gaussian(2, 4), max_norm=3.0).max_norm == 3 for name in clipped)
    assert {name for name, one in made.items() if one.watches_losses_after} == {"FAMO"}


@pytest.mark.parametrize("name", ["DWA", "UW", "FAMO"])
def test_losses_may_be_in_another_precision_than_the_parameters(name):
    made, losses = solver(name, gaussian(2, 4).float()), torch.tensor([1.0, 2.0], dtype=torch.float64)
    for _ in range(2):
        assert made.weights(losses).dtype == torch.float64
        made.stepped(losses / 2)
    assert name != "DWA" or made.state_dict()["losses"]["losses"].dtype == torch.float32
