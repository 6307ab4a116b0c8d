"""Solvers repeat what was recorded from their authors' codes, and from exact solutions where those stop early."""

import pytest
import torch
from solver_cases import LOSSES, RECORDED, SEQUENCES, combined, recorded, solved, solver

from domainbed_sage.training.replays.directions import ROWS, Jacobians
from domainbed_sage.training.replays.loss_solvers import Losses

# Closer than `verify` asks for.
CLOSER = {
    "exact/MGDA": 1e-13,
    "exact/IMTLG": 1e-10,
    "exact/CAGrad": 1e-10,
    "exact/FairGrad_a1": 1e-12,
    "exact/FairGrad_a1 (Nash-MTL)": 1e-12,
    "exact/FairGrad_a2": 1e-12,
    "MGDA": 1e-10,
    "MGDA_libmtl": 1e-10,
    "PCGrad": 1e-12,
    "GradDrop": 1e-15,
    "IMTLG": 1e-10,
}
JACOBIANS = Jacobians(RECORDED)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_every_recorded_direction(row):
    distances = JACOBIANS.of(row)
    assert len(distances) >= (32 if row.key.startswith("exact/") else 10)
    assert {case: d for case, d in distances.items() if not d <= CLOSER.get(row.key, row.tolerance)} == {}


GRADS = [row for row in ROWS if f"k2_well/{row.key}/grad" in RECORDED]


def test_factors_and_clipping_were_recorded_of_all_of_them():
    assert {row.solver for row in GRADS} == {"MGDA", "PCGrad", "GradDrop", "FairGrad", "CAGrad", "Nash-MTL"}


@pytest.mark.parametrize("row", GRADS, ids=lambda row: row.key)
def test_factor_and_clipping(row):
    """What the authors' codes leave in `.grad`."""
    distances = JACOBIANS.of(row, "grad")
    assert {case: d for case, d in distances.items() if not d <= CLOSER.get(row.key, row.tolerance)} == {}


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_moco_and_nash_step_by_step(sequence):
    J, losses = recorded(f"{sequence}/J"), recorded(f"{sequence}/losses")
    moco, nash = solver("MoCo", J[0]), solver("Nash-MTL", J[0])
    for t in range(len(J)):
        ours = combined(moco, J[t], losses[t])
        torch.testing.assert_close(ours, recorded(f"{sequence}/MoCo/direction")[t], rtol=0, atol=1e-13)
        torch.testing.assert_close(moco.tracked.weights, recorded(f"{sequence}/MoCo/weights")[t], rtol=0, atol=1e-13)
        exact = recorded(f"{sequence}/exact/NashMTL/weights")[t]
        torch.testing.assert_close(nash.weights(J[t] @ J[t].T), exact, rtol=1e-12, atol=0)


@pytest.mark.parametrize("K", [2, 3])
def test_weights_of_losses_step_by_step(K):
    """120 steps of the solvers that see losses alone; DWA's window was recorded in float32, too."""
    distances = Losses(f"k{K}", LOSSES).distances()
    assert {name.split("/")[0].split("_")[0] for name in distances} == {"SI", "RLW", "DWA", "UW", "FAMO"}
    assert distances.pop("DWA_window/gradient_weights") <= 3e-7
    assert {name: d for name, d in distances.items() if not d <= 1e-13} == {}


def shortness(J, w):
    """How far the square of Σ_k w_k g_k is above its minimum at most, relative to it."""
    g = J @ (w @ J)
    return ((w @ g - g.min()) / (w @ g)).item()


def unfairness(J, w):
    return ((J @ (w @ J)) * w.sqrt() - 1).abs().max().item()


@pytest.mark.parametrize("case", ["k3_spread_1e6", "k2_tiny", "k3_tiny_spread_100"])
def test_where_authors_and_we_differ_we_are_right(case):
    """The residual of the condition that defines the solution, theirs and ours."""
    J = recorded(f"{case}/J")
    G = J @ J.T
    assert unfairness(J, solved("FairGrad", G)) <= 1e-11
    assert unfairness(J, recorded(f"{case}/FairGrad_a2_fairgrad/weights")) >= 0.5
    assert unfairness(J, recorded(f"{case}/FairGrad_a2_samo/weights")) >= 0.5
    assert abs(shortness(J, solved("MGDA", G))) <= 1e-9
    if case == "k3_tiny_spread_100":
        assert shortness(J, recorded(f"{case}/MGDA/weights")) >= 1e-4
    g0 = J.mean(0)
    ours, theirs = (d * (1 + 0.4**2) for d in (solved("CAGrad", G) @ J, recorded(f"{case}/CAGrad/direction")))
    ball = 0.4 * (1 + 1e-12) * g0.norm()
    assert (ours - g0).norm() <= ball
    assert (theirs - g0).norm() > ball or (J @ theirs).min() - (J @ ours).min() < -0.01 * (J @ ours).min().abs()
