"""BOA: its warm-up, its walls, and the space that it does not leave."""

from contextlib import nullcontext

import pytest
import torch
from algorithm_cases import algorithm, batches, mlp, run, trajectory, weights
from properties import assert_close, assert_reads_no_value, assert_same_bits
from reference.literals import at, loss_and_gradient
from reference.sage_literal import flat, pieces

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.models.optimizers import sgd

SMALL = {"warmup_steps": 2, "krylov_dim": 3, "delta": 0.05}
SIZES = (2, 3, 4)


@pytest.mark.parametrize(("warmup", "rho"), [("ERM", {}), ("SAM", {"rho": 0.1})])
def test_warm_up_is_erm_or_sam(warmup, rho):
    ours = trajectory("BOA", SIZES, warmup=warmup, warmup_steps=4, **rho)
    assert_same_bits(ours, trajectory(warmup, SIZES, **rho))


def bounced(steps, hparams=SMALL, **more):
    """The method after so many steps, all of them on one minibatch, and the weights at the end of the warm-up."""
    made = algorithm("BOA", mlp(), **hparams | more)
    path = run(made, batches(SIZES, 1) * steps)
    return made, path[hparams["warmup_steps"] - 1]


@pytest.mark.parametrize("bounces", [1, 2, 5])
@pytest.mark.parametrize("step", [1e-3, 0.5, 50.0])
def test_every_bounce_ends_on_the_wall(bounces, step):
    """Whether the first α is far too small or far too large."""
    made, start = bounced(SMALL["warmup_steps"] + bounces - 1, step=step, brackets=30, sections=30)
    (batch,) = batches(SIZES, 1)
    made.step = SMALL["warmup_steps"] + bounces - 1
    metrics = made.update(batch)
    wall = at(made.model, start, list(batch.domains()))[0] + SMALL["delta"]
    assert_close(metrics["loss_wall"], wall, 1e-12)
    assert_close(metrics["loss"], wall, 1e-6)
    assert metrics["alpha"] > 0


def test_where_no_wall_is_in_sight_it_goes_as_far_as_was_seen():
    made, _ = bounced(2)
    made.step = 2
    made.delta = 1e6
    assert made.update(batches(SIZES, 1)[0])["alpha"] == 0.5 * 2**5  # doubled after each of 6 brackets but the last


def test_the_ball_stays_in_the_krylov_space_and_keeps_its_speed():
    made, start = bounced(3)
    speed = flat(made.ball.direction).norm()
    basis = torch.stack([flat(b) for b in made.ball.basis])
    assert_close(basis @ basis.T, torch.eye(3), 1e-10)
    run(made, batches(SIZES, 6), start=3)
    moved = weights(made.model) - start
    assert moved.norm() > 1e-3
    assert_close(basis.T @ (basis @ moved), moved, 1e-10)
    assert_close(flat(made.ball.direction).norm(), speed, 1e-10)
    assert_same_bits(flat(made.ball.start), start)


def test_the_space_is_that_of_the_hessian():
    """Against second derivatives; the differences have an error of the order of their radius."""
    made, _ = bounced(2, hvp_radius=1e-5)
    (batch,) = batches(SIZES, 1)
    made.start(batch)
    params = list(made.model.parameters())
    g = torch.autograd.grad(made.loss(batch.x, batch.y), params, create_graph=True)
    powers = [g]
    for _ in range(2):
        powers.append(torch.autograd.grad(g, params, [v.detach() for v in powers[-1]], retain_graph=True))
    exact = torch.stack([flat(v) for v in powers])
    basis = torch.stack([flat(b) for b in made.ball.basis])
    assert_close(basis.T @ (basis @ exact.T), exact.T, 1e-4)
    assert_close(flat(made.ball.direction), -exact.sum(0), 1e-4)


@pytest.mark.parametrize("tilt", [0.0, 0.5, 2.0])
def test_only_what_flies_out_is_reflected(tilt):
    """Along the normal n and along the wall: the part along n turns where it points out."""
    made, _ = bounced(3)
    ball, (batch,) = made.ball, batches(SIZES, 1)
    _, g = loss_and_gradient(made.model, list(batch.domains()))
    n = -sum((flat(b) @ g) * flat(b) for b in ball.basis)
    n = n / n.norm()
    along = flat(ball.basis[0]) - (flat(ball.basis[0]) @ n) * n
    for sign in (1, -1):
        ball.direction = tuple(t.clone() for t in pieces(sign * n + tilt * along, made.params))
        ball.reflect(made.gradient(batch)[1])
        assert_close(flat(ball.direction), n + tilt * along, 1e-10)


def test_a_bounce_reads_no_value(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # it knows no meta device
    made = algorithm("BOA", mlp().to("meta"), make_optimizer=sgd, **SMALL | {"warmup_steps": 1})
    assert_reads_no_value(made, batches(SIZES, 1)[0])
    assert made.ball.direction


def test_a_run_has_to_warm_up_and_to_search():
    cls = algorithms["BOA"]
    with pytest.raises(UserError, match=r"'warmup_steps' should be a whole number ≥ 1\. Found 0"):
        validate(declared(cls), {"warmup_steps": 0})
    with pytest.raises(UserError, match=r"warmup_steps = 8 leaves no step to search in\. Found 8 steps"):
        cls(Problem(mlp(), sgd, 3, "fp64", steps=8), warmup_steps=8)
    for steps in (9, 0):  # 0: nobody trains to an end
        assert cls(Problem(mlp(), sgd, 3, "fp64", steps=steps), warmup_steps=8).passes_per_step == 1
    assert cls.experimental
