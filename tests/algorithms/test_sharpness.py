"""What the further sharpness-aware methods and Fish promise beside their trajectories."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from algorithm_cases import algorithm, batches, mlp, run, trajectory, weights
from properties import (
    assert_close,
    assert_parameter_untouched,
    assert_resumes_exactly,
    assert_same_bits,
)
from reference.literals import loss_and_gradient
from torch.nn.utils import parameters_to_vector

from domainbed_sage.algorithms.draws import Draws
from domainbed_sage.algorithms.gam import divergence
from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.vectors import orthogonal_
from domainbed_sage.models.optimizers import sgd

STEP = partial(sgd, lr=1.0, momentum=0.0)
DRAWN = {"meta_lr": 0.5, "meta_steps": 2}


def test_orthogonal_part():
    x, y = (tuple(torch.randn(3, 4, dtype=torch.float64).unbind()) for _ in range(2))
    flat_x, flat_y = torch.cat(x), torch.cat(y)
    expected = flat_x - (flat_x @ flat_y) / (flat_y @ flat_y) * flat_y
    zero = tuple(torch.zeros_like(t) for t in y)
    kept = torch.cat(orthogonal_(tuple(t.clone() for t in x), zero))
    found = torch.cat(orthogonal_(x, y))
    assert_close(found, expected, 1e-14)
    assert abs(found @ flat_y) < 1e-14
    assert_same_bits(kept, flat_x)


def test_gsams_step_lowers_the_gap_and_not_the_perturbed_loss():
    """The direction without SAM's is orthogonal to the perturbed gradient."""
    before = weights(mlp())
    steps = [
        before - run(algorithm("GSAM", mlp(), make_optimizer=STEP, rho=0.05, alpha=a), batches((2, 3, 4), 1))[0]
        for a in (0.0, 0.5)
    ]
    extra = steps[1] - steps[0]
    assert abs(extra @ steps[0]) < 1e-12 * extra.norm() * steps[0].norm() + 1e-15
    _, g = loss_and_gradient(mlp(), list(batches((2, 3, 4), 1)[0].domains()))
    assert extra @ g < 0


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothed_loss_is_a_divergence(smoothing):
    """0 where the prediction is the smoothed label, and the cross-entropy less the labels' entropy elsewhere."""
    y = torch.tensor([0, 2])
    q = torch.full((2, 3), smoothing / 2, dtype=torch.float64).scatter(1, y[:, None], 1 - smoothing)
    assert_close(divergence(q.log() + 7, y, smoothing), 0.0, 1e-15)
    logits = torch.randn(2, 3, dtype=torch.float64)
    entropy = -(q * q.log()).sum(1).mean()
    assert_close(divergence(logits, y, smoothing), F.cross_entropy(logits, q) - entropy, 1e-14)


@pytest.mark.parametrize("reading", ["samsung", "davda54"])
def test_asam_moves_by_rho_in_units_of_the_weights(reading):
    model, (batch,) = mlp(), batches((2, 3, 4), 1)
    made = algorithm("ASAM", model, rho=0.5, eta=0.2, reading=reading)
    _, g = made.gradient(batch)
    epsilon = made.ascent_(g)
    T = [
        torch.ones_like(p) if reading == "samsung" and name.endswith("bias") else p.abs() + (reading == "samsung") * 0.2
        for name, p in model.named_parameters()
    ]
    assert_close(torch.cat([(e / t).flatten() for e, t in zip(epsilon, T, strict=True)]).norm().detach(), 0.5, 1e-10)


def test_friendly_sams_first_step_is_sams():
    one, other = (trajectory(name, (2, 3, 4), rho=0.1) for name in ("FriendlySAM", "SAM"))
    assert_close(one[0], other[0], 1e-15)
    assert (one[1] - other[1]).abs().max() > 1e-6


def test_friendly_sams_average_is_that_before_the_step():
    made, average = algorithm("FriendlySAM", mlp(), lmbda=0.6), None
    for t, batch in enumerate(batches((2, 3, 4))):
        _, g = loss_and_gradient(made.model, list(batch.domains()))
        average = g if t == 0 else 0.6 * average + 0.4 * g
        made.step = t
        made.update(batch)
        assert_close(parameters_to_vector(made.average.vector), average, 1e-14)


# Fish with drawn domains, which its settings for one domain cannot have


class Fixed(Draws):
    def permutation(self, name, n):
        assert (name, n) == ("domains", 3)
        return [2, 0, 1]


def test_fish_visits_the_drawn_domains_and_divides_by_their_number():
    made, (batch,) = (
        algorithm("Fish", mlp(), make_optimizer=partial(sgd, lr=0.1, momentum=0.9), **DRAWN),
        batches((2, 3, 4), 1),
    )
    made.draws, before = Fixed(), weights(made.model)
    metrics = made.update(batch)
    inner = algorithm("ERM", mlp(), make_optimizer=partial(sgd, lr=0.1, momentum=0.9))
    (x, y), _, (x2, y2) = batch.domains()
    inner.update(type(batch)(x2, y2, (4,)))
    last = inner.update(type(batch)(x, y, (2,)))
    assert_close(weights(made.model), before + 0.5 / 2 * (weights(inner.model) - before), 1e-15)
    assert metrics["loss"] == last["loss"]


def test_fish_with_drawn_domains_in_a_run():
    assert_resumes_exactly("Fish", DRAWN, (2, 3, 4))
    model = mlp()
    model.featurizer[0].weight.requires_grad_(False)
    assert_parameter_untouched("Fish", DRAWN, model, "featurizer.0.weight", 3, STEP)


@pytest.mark.parametrize("meta_lr", [0.0, 1.0])
def test_fish_at_the_ends_of_its_way(meta_lr):
    made, before = algorithm("Fish", mlp(), make_optimizer=STEP, meta_lr=meta_lr), weights(mlp())
    after = run(made, batches((2, 3, 4), 1))[0]
    theirs = mlp()
    for x, y in batches((2, 3, 4), 1)[0].domains():
        erm = algorithm("ERM", theirs, make_optimizer=STEP)
        erm.update(type(batches((2,), 1)[0])(x, y, (len(y),)))
    assert_same_bits(after, weights(theirs) if meta_lr else before)


def test_fish_cannot_draw_more_domains_than_there_are():
    with pytest.raises(UserError, match=r"meta_steps = 4 of 3 source domains\. Choose at most 3, or 0"):
        algorithm("Fish", mlp(), 3, meta_steps=4)
    assert algorithm("Fish", mlp(), 3, meta_steps=3).share == 0.5 / 3
