"""A solver that is made anew and given the state continues bit for bit."""

import copy
import io

import pytest
import torch
from solver_cases import VARIANTS, flat, gaussian, solver, vectors

STEPS = 8


def step(made, t):
    torch.manual_seed(t)
    J, losses = gaussian(3, 8, seed=t), gaussian(3, seed=100 + t).exp()
    direction = made.finished_(made.combine(losses, vectors(J)).direction)
    made.stepped(0.9 * losses + 0.01 * t)
    if t % 2:
        made.epoch_ended()
    return flat(direction)


@pytest.mark.parametrize(("name", "hparams"), VARIANTS, ids=str)
@pytest.mark.parametrize("stop", [1, 6])
def test_restart(name, hparams, stop):
    straight = solver(name, gaussian(3, 8), **hparams)
    expected = [step(straight, t) for t in range(STEPS)]
    first = solver(name, gaussian(3, 8), **hparams)
    for t in range(stop):
        step(first, t)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    again = solver(name, gaussian(3, 8), **hparams)
    step(again, 99)  # whatever it remembers is replaced
    again.load_state_dict(torch.load(file, weights_only=True))
    for t in range(stop, STEPS):
        assert torch.equal(step(again, t), expected[t])


@pytest.mark.parametrize("name", ["DWA", "UW", "MoCo", "FAMO"])
def test_the_state_matters(name):
    """Without it, the next direction is another one."""
    hparams = {"iteration_window": 2} if name == "DWA" else {}
    old, new = (solver(name, gaussian(3, 8), **hparams) for _ in range(2))
    for t in range(5):
        step(old, t)
    assert old.state_dict() != {}
    assert not torch.equal(step(old, 5), step(new, 5))


def test_loading_does_not_share_memory():
    old, new = (solver("MoCo", gaussian(3, 8)) for _ in range(2))
    step(old, 0)
    state = old.state_dict()
    new.load_state_dict(state)
    before = copy.deepcopy(old.state_dict())
    step(new, 1)
    for ours, theirs in zip(old.state_dict()["tracked"]["y"], before["tracked"]["y"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_state_takes_the_precision_of_the_parameters():
    """And is on their device: checkpoints are read on the CPU."""
    old, new = solver("MoCo", gaussian(3, 8)), solver("MoCo", gaussian(3, 8).float())
    step(old, 0)
    new.load_state_dict(old.state_dict())
    state = new.state_dict()["tracked"]
    assert {t.dtype for t in (state["weights"], *state["y"][0])} == {torch.float32}


def test_an_epoch_without_steps_is_none():
    """Weights are equal as long as two epochs had some."""
    made, losses = solver("DWA", gaussian(2, 4), reading="epoch"), torch.tensor([1.0, 2.0], dtype=torch.float64)
    for _ in range(2):
        made.epoch_ended()
        assert made.weights(losses).tolist() == [1, 1]


def test_learning_rates_that_follow_the_runs():
    """UW's variances do, as in the authors' one optimizer; FAMO's logits do not."""
    assert [len(solver(name, gaussian(2, 4)).scheduled) for name in ("UW", "FAMO", "LS")] == [1, 0, 0]
