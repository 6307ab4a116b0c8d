"""Solvers repeat what was recorded from their authors' codes, and from exact solutions where those stop early."""

import numpy as np
import pytest
import torch
from solver_cases import CASES, LOSSES, RECORDED, SEQUENCES, Given, combined, recorded, solved, solver

from domainbed_sage.algorithms.solvers import Tasks, make_solver

# Recorded name, our name and hyperparameters, largest relative distance of the directions. The exact solutions have no
# rows where there is none: FairGrad with zero or opposite gradients, IMTL-G with dependent ones.
EXACT = [
    ("exact/MGDA", "MGDA", {}, 1e-13),
    ("exact/IMTLG", "IMTL-G", {}, 1e-11),
    ("exact/CAGrad", "CAGrad", {}, 1e-10),
    ("exact/FairGrad_a1", "FairGrad", {"alpha": 1.0}, 1e-12),
    ("exact/FairGrad_a2", "FairGrad", {"alpha": 2.0}, 1e-12),
    ("exact/FairGrad_a1", "Nash-MTL", {}, 1e-12),
]
ILL = ("zero_row", "antiparallel", "sum_row", "rank_one", "equal_rows")  # dependent rows
SHORT = ("tiny", "small", "spread")  # where codes with absolute tolerances stop early
AUTHORS = [
    ("MGDA", "MGDA", {"solution": "authors"}, 1e-10, ()),
    ("MGDA_libmtl", "MGDA", {"solution": "authors"}, 1e-10, ()),
    ("IMTLG", "IMTL-G", {}, 1e-10, ILL),
    ("FairGrad_a1_fairgrad", "FairGrad", {"alpha": 1.0, "solution": "authors"}, 1e-6, ("antiparallel", "1e6", "zero")),
    ("FairGrad_a2_fairgrad", "FairGrad", {"solution": "authors"}, 1e-6, ("antiparallel", "1e6", "zero")),
    ("FairGrad_a2_samo", "FairGrad", {"solution": "samo"}, 1e-6, ("antiparallel", "1e6", "zero")),
    ("FairGrad_a2_fairgrad", "FairGrad", {}, 1e-6, (*ILL, *SHORT)),
    ("NashMTL", "Nash-MTL", {}, 1e-5, (*ILL, *SHORT, "conflict", "vertex", "near")),
    ("torchjd/MGDA_1e-9_100000", "MGDA", {}, 3e-3, (*SHORT, "antiparallel", "zero_row")),
    ("torchjd/IMTLG", "IMTL-G", {}, 1e-9, ILL),
    ("torchjd/FairGrad_a1", "FairGrad", {"alpha": 1.0}, 1e-5, (*ILL, *SHORT)),
    ("torchjd/FairGrad_a2", "FairGrad", {}, 1e-6, (*ILL, *SHORT)),
]


def distance(case, name, hparams, theirs):
    """Between our direction and theirs, relative to it; where it is nothing but rounding, to 1e-2 of the gradients."""
    J = recorded(f"{case}/J")
    ours = solved(name, J @ J.T, **hparams) @ J
    return ((ours - theirs).norm() / theirs.norm().clamp_min(1e-2 * J.norm() if optimum_is_zero(case) else 0)).item()


def optimum_is_zero(case):
    return "antiparallel" in case or "zero_row" in case


def direction(case, key):
    if f"{case}/{key}/direction" in RECORDED:
        return recorded(f"{case}/{key}/direction")
    return recorded(f"{case}/{key}/weights") @ recorded(f"{case}/J")


@pytest.mark.parametrize(("key", "name", "hparams", "tolerance"), EXACT, ids=lambda v: str(v))
def test_exact_solutions(key, name, hparams, tolerance):
    there = [case for case in CASES if f"{case}/{key}/weights" in RECORDED]
    assert len(there) >= 32
    distances = {case: distance(case, name, hparams, direction(case, key)) for case in there}
    assert {case: d for case, d in distances.items() if not d <= tolerance} == {}


@pytest.mark.parametrize(("key", "name", "hparams", "tolerance", "without"), AUTHORS, ids=lambda v: str(v)[:40])
def test_authors_and_torchjd(key, name, hparams, tolerance, without):
    there = [case for case in CASES if not any(word in case for word in without)]
    assert len(there) >= 10
    distances = {case: distance(case, name, hparams, direction(case, key)) for case in there}
    assert {case: d for case, d in distances.items() if not d <= tolerance} == {}


@pytest.mark.parametrize("case", CASES)
def test_drawn_directions(case):
    J = recorded(f"{case}/J")
    for name, draws in (
        ("PCGrad", RECORDED[f"{case}/PCGrad/orders"].tolist()),
        ("GradDrop", RECORDED[f"{case}/GradDrop/U"].tolist()),
    ):
        made = solver(name, J)
        made.draws = Given(draws)
        assert (combined(made, J) - recorded(f"{case}/{name}/direction")).norm() <= 1e-14 * J.norm()


@pytest.mark.parametrize("case", ["k2_well", "k3_well", "k3_conflict", "k2_small", "k3_large"])
def test_factor_and_clipping(case):
    """What the authors' codes leave in `.grad`."""
    J = recorded(f"{case}/J")
    for key, name, hparams, draws, tolerance in (
        ("MGDA", "MGDA", {"solution": "authors"}, [], 1e-12),
        ("PCGrad", "PCGrad", {}, RECORDED[f"{case}/PCGrad/orders"].tolist(), 1e-12),
        ("GradDrop", "GradDrop", {}, RECORDED[f"{case}/GradDrop/U"].tolist(), 1e-12),
        ("FairGrad_a2_fairgrad", "FairGrad", {"solution": "authors"}, [], 1e-8),
        ("CAGrad", "CAGrad", {}, [], 0.2 if case == "k2_small" else 2e-3),
        ("NashMTL", "Nash-MTL", {}, [], 1e-6),
    ):
        made = solver(name, J, **hparams)
        made.draws = Given(draws)
        grad = made.finished_((combined(made, J),))[0]
        theirs = recorded(f"{case}/{key}/grad")
        assert (grad - theirs).norm() <= tolerance * theirs.norm(), key


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


def of_losses(name, K, **hparams):
    return make_solver(name, Tasks(K, (torch.zeros(1, dtype=torch.float64),)), hparams)


@pytest.mark.parametrize("K", [2, 3])
class TestLosses:
    """120 steps of the solvers that see losses alone."""

    def assert_weights(self, made, K, key, tolerance, after=None):
        for t, losses in enumerate(LOSSES[f"k{K}/losses"]):
            w = made.weights(torch.from_numpy(losses))
            assert np.abs(w.numpy() - LOSSES[f"k{K}/{key}"][t]).max() <= tolerance
            if after:
                after(t)

    def test_si(self, K):
        self.assert_weights(of_losses("SI", K), K, "SI/gradient_weights", 1e-14)

    def test_rlw(self, K):
        made = of_losses("RLW", K)
        made.draws = Given(LOSSES[f"k{K}/RLW/draws"].flatten())
        self.assert_weights(made, K, "RLW/weights", 1e-14)

    def test_dwa_window(self, K):
        """The authors' code is in float32."""
        self.assert_weights(of_losses("DWA", K), K, "DWA_window/gradient_weights", 3e-7)
        made = of_losses("DWA", K)
        for t, losses in enumerate(LOSSES[f"k{K}/losses"]):
            w = K * made.weights(torch.from_numpy(losses)).numpy()
            assert np.abs(w - LOSSES[f"k{K}/DWA_window/weights_float64"][t]).max() <= 1e-14

    def test_dwa_epoch(self, K):
        made = of_losses("DWA", K, reading="epoch")
        for epoch, batches in enumerate(LOSSES[f"k{K}/epoch_losses"]):
            for losses in batches:
                w = made.weights(torch.from_numpy(losses)).numpy()
                assert np.abs(w - LOSSES[f"k{K}/DWA_epoch/weights"][epoch]).max() <= 1e-14
            made.epoch_ended()

    def test_uw(self, K):
        made = of_losses("UW", K)

        def s_moved(t):
            assert np.abs(made.variances.s.numpy() - LOSSES[f"k{K}/UW/s"][t]).max() <= 1e-13

        self.assert_weights(made, K, "UW/gradient_weights", 1e-13, s_moved)

    @pytest.mark.parametrize("gamma", [0.001, 0.01])
    def test_famo(self, K, gamma):
        made = of_losses("FAMO", K, famo_gamma=gamma)

        def w_moved(t):
            made.stepped(torch.from_numpy(LOSSES[f"k{K}/losses_after"][t]))
            assert np.abs(made.logits.w.numpy() - LOSSES[f"k{K}/FAMO_gamma{gamma}/w"][t]).max() <= 1e-13

        self.assert_weights(made, K, f"FAMO_gamma{gamma}/gradient_weights", 1e-13, w_moved)


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
