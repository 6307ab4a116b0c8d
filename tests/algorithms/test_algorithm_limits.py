"""Limit cases of the algorithms: which of them become which, and when."""

from functools import partial

import pytest
import torch
from algorithm_cases import NETWORKS, algorithm, batches, cnn, mlp, one_thread, run, trajectory, weights
from properties import assert_close, assert_same_bits
from reference.literals import loss_and_gradient, smallest_cosine_and_loss
from reference.sage_literal import flat

from domainbed_sage.geometry.polar import polar_factor
from domainbed_sage.models.optimizers import adam, sgd

ONE = {"grad_beta_0": 1.0}
SEARCH = {"start": 0, "end": 9, "trials": 6}

# The left method with these hyperparameters is the right one, on domains of these sizes.
LIMITS = [
    ("SAM", {"rho": 0.0}, "ERM", {}, (3, 3, 3)),
    ("GSAM", {"rho": 0.0, "alpha": 0.5}, "ERM", {}, (2, 3, 4)),
    ("GSAM", {"rho": 0.05, "alpha": 0.0}, "SAM", {"rho": 0.05}, (2, 3, 4)),
    ("GAM", {"grad_rho": 0.05, "grad_beta_1": 1.0, "grad_gamma": 0.0}, "SAM", {"rho": 0.05}, (2, 3, 4)),
    (
        "GAM",
        {"grad_rho": 0.05, "grad_norm_rho": 0.0, "grad_beta_0": 0.5, "grad_beta_1": 1.0, "grad_gamma": 0.2},
        "GSAM",
        {"rho": 0.05, "alpha": 0.3},
        (2, 3, 4),
    ),
    ("GAM", {"grad_beta_2": -0.5, "grad_beta_3": 0.4}, "GAM", {}, (2, 3, 4)),
    ("GAM", {"grad_beta_0": 1.0, "grad_beta_2": 0.7}, "GAM", {"grad_beta_2": -0.7, "reading": "paper"} | ONE, (3, 3)),
    ("ASAM", {"rho": 0.0}, "ERM", {}, (2, 3, 4)),
    ("ASAM", {"rho": 0.5, "eta": 0.3, "reading": "davda54"}, "ASAM", {"rho": 0.5, "reading": "davda54"}, (2, 3, 4)),
    ("FriendlySAM", {"rho": 0.0}, "ERM", {}, (2, 3, 4)),
    ("FriendlySAM", {"rho": 0.05, "sigma": 0.0}, "SAM", {"rho": 0.05}, (2, 3, 4)),
    ("Fish", {"meta_lr": 1.0}, "ERM", {}, (5,)),
    ("SAGM", {"rho": 0.0, "alpha": 0.0}, "ERM", {}, (3, 3, 3)),
    ("DISAM", {"lambda_weight": 0.0, "rho": 0.05}, "SAM", {"rho": 0.05}, (2, 3, 4)),
    ("DISAM", {"lambda_weight": 0.3, "rho": 0.0}, "ERM", {}, (2, 3, 4)),
    ("DISAM", {"lambda_weight": 0.3, "rho": 0.05}, "SAM", {"rho": 0.05}, (5,)),
    ("DISAM", {"lambda_weight": 0.3, "rho": 0.05, "sample_weighted": True}, "SAM", {"rho": 0.05}, (5,)),
    ("DISAM", {"lambda_weight": 0.3}, "DISAM", {"lambda_weight": 0.3, "sample_weighted": True}, (3, 3, 3)),
    ("GGA", {"radius": 0.0} | SEARCH, "ERM", {}, (2, 3, 4)),
    ("GGA", {"radius": 0.0, "random_walk": True} | SEARCH, "ERM", {}, (2, 3, 4)),
    ("GGA", {"radius": 0.05} | SEARCH, "ERM", {}, (5,)),
    ("GGA", {"radius": 0.05, "random_walk": True} | SEARCH, "ERM", {}, (5,)),
    ("GGA", {"radius": 0.05, "start": 4, "end": 9, "trials": 6}, "ERM", {}, (2, 3, 4)),
    ("GGA", {"radius": 0.05, "start": 3, "end": 2, "trials": 6}, "ERM", {}, (2, 3, 4)),
    ("GGA", {"radius": 0.05, "tolerance": -100.0} | SEARCH, "ERM", {}, (2, 3, 4)),
    ("GGA_L", {"gamma": 0.0}, "ERM", {}, (2, 3, 4)),
    ("GGA_L", {"gamma": 0.5}, "ERM", {}, (5,)),
    ("SAGE", {"rho": 0.0, "gamma": 0.0}, "ERM", {}, (2, 3, 4)),
    ("SAGE", {"rho": 0.0, "gamma": 0.05}, "GGA_L", {"gamma": 0.05, "noise": "gaussian"}, (2, 3, 4)),
    ("SAGE", {"rho": 0.02, "gamma": 0.5}, "SAGE", {"rho": 0.02, "gamma": 0.0}, (5,)),
    ("SAGE", {"rho": 0.02, "gamma": 0.5, "noise": False}, "SAGE", {"rho": 0.02, "gamma": 0.0}, (2, 3, 4)),
]

# Settings that do count: the two trajectories part.
DIFFERENCES = [
    ("DISAM", {"lambda_weight": 0.3}, "DISAM", {"lambda_weight": 0.3, "sample_weighted": True}, (1, 3, 6)),
    ("DISAM", {"lambda_weight": 0.3}, "SAM", {}, (3, 3, 3)),
    ("SAM", {"rho": 0.05}, "ERM", {}, (3, 3, 3)),
    ("GSAM", {"alpha": 0.2}, "SAM", {}, (3, 3, 3)),
    ("GAM", {"grad_gamma": 0.3}, "GAM", {"grad_gamma": 0.3, "reading": "paper"}, (3, 3, 3)),
    ("GAM", {"label_smoothing": 0.1}, "GAM", {}, (3, 3, 3)),
    ("GAM", {"grad_norm_rho": 0.1}, "GAM", {"grad_norm_rho": 0.2}, (3, 3, 3)),
    ("ASAM", {"eta": 0.3}, "ASAM", {"eta": 0.0}, (3, 3, 3)),
    ("ASAM", {"eta": 0.0}, "ASAM", {"reading": "davda54"}, (3, 3, 3)),
    ("FriendlySAM", {"lmbda": 0.6}, "FriendlySAM", {"lmbda": 0.9}, (3, 3, 3)),
    ("Fish", {"meta_steps": 2}, "Fish", {"meta_steps": 3}, (3, 3, 3)),
    ("SAGM", {"alpha": 0.02}, "SAGM", {"alpha": 0.0}, (3, 3, 3)),
    ("SAGM", {"halve": True}, "SAGM", {"halve": False}, (3, 3, 3)),
    ("GGA", {"radius": 0.05, "start": 3, "end": 3, "trials": 9}, "ERM", {}, (3, 3, 3)),
    ("GGA", {"radius": 0.05} | SEARCH, "GGA", {"radius": 0.05, "random_walk": True} | SEARCH, (3, 3, 3)),
    ("GGA_L", {"gamma": 0.05}, "GGA_L", {"gamma": 0.05, "noise": "gaussian"}, (3, 3, 3)),
    ("SAGE", {"rho": 0.02, "gamma": 0.05}, "SAGE", {"rho": 0.02, "gamma": 0.05, "noise": False}, (3, 3, 3)),
    ("SAGE", {"rho": 0.02, "ns": "quintic"}, "SAGE", {"rho": 0.02, "ns": "cubic"}, (3, 3, 3)),
    ("SAGE", {"rho": 0.02}, "SAGE", {"rho": 0.02, "orthogonalize": False}, (3, 3, 3)),
    ("SAGE", {"rho": 0.02}, "SAGE", {"rho": 0.02, "scale_by_weight": False}, (3, 3, 3)),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("one", "one_hparams", "other", "other_hparams", "sizes"), LIMITS)
def test_limit_case(one, one_hparams, other, other_hparams, sizes, network):
    ours = trajectory(one, sizes, network=network, **one_hparams)
    assert_close(ours, trajectory(other, sizes, network=network, **other_hparams))


@pytest.mark.parametrize(("one", "one_hparams", "other", "other_hparams", "sizes"), DIFFERENCES)
def test_setting_counts(one, one_hparams, other, other_hparams, sizes):
    distance = trajectory(one, sizes, **one_hparams) - trajectory(other, sizes, **other_hparams)
    assert distance[-1].abs().max() > 1e-6


def one_sgd_step(name, sizes=(2, 3, 4), **hparams):
    """The descent direction of one update: with lr 1 and no momentum, θ before minus θ after."""
    model = mlp()
    before = weights(model)
    made = algorithm(name, model, len(sizes), make_optimizer=partial(sgd, lr=1.0, momentum=0.0), **hparams)
    return before - run(made, batches(sizes, 1))[0]


def test_sagm_without_alpha_is_the_mean_of_erm_and_sam():
    mean = (one_sgd_step("ERM") + one_sgd_step("SAM", rho=0.05)) / 2
    assert_close(one_sgd_step("SAGM", rho=0.05, alpha=0.0), mean, 1e-12)
    assert_close(one_sgd_step("SAGM", rho=0.05, alpha=0.0, halve=False), 2 * mean, 1e-12)


def test_adam_sees_sagms_factor_through_the_weight_decay_alone():
    """Without decay Adam is scale-free but for its ε = 1e-8."""

    def halving_counts(weight_decay):
        make_optimizer = partial(adam, lr=1e-2, weight_decay=weight_decay)
        mean, total = (
            run(algorithm("SAGM", mlp(), make_optimizer=make_optimizer, halve=halve), batches((3, 3, 3)))
            for halve in (True, False)
        )
        return (mean - total).abs().max()

    assert halving_counts(weight_decay=0.0) < 1e-5
    assert halving_counts(weight_decay=0.1) > 1e-3


@pytest.mark.parametrize("name", ["SAGE", "GGA_L"])
def test_one_domain_agrees_with_itself(name):
    made = algorithm(name, mlp(), 1, gamma=0.5)
    metrics = made.update(batches((4,))[0])
    assert metrics["agreement"] == 1
    assert metrics["beta"] == 0


@pytest.mark.parametrize("name", ["SAGE", "GGA_L"])
def test_noise_scale_is_gamma_times_disagreement(name):
    metrics = algorithm(name, mlp(), gamma=0.5).update(batches((2, 3, 4))[0])
    assert_close(metrics["beta"], 0.5 * (1 - metrics["agreement"]), 1e-15)
    assert metrics["beta"] > 0


def test_noise_is_standard_normal_times_beta():
    """Over 40 seeds the direction of SAGE minus that without noise has mean 0 and deviation β, to 4 standard errors."""
    model, (batch,) = mlp(), batches((2, 3, 4), 1)
    start, drawn = {k: v.clone() for k, v in model.state_dict().items()}, []
    made = algorithm("SAGE", model, make_optimizer=partial(sgd, lr=1.0, momentum=0.0), rho=0.0, gamma=0.05)
    for seed in range(40):
        model.load_state_dict(start)
        torch.manual_seed(seed)
        before = weights(model)
        beta = made.update(batch)["beta"]
        drawn.append((before - weights(model) - one_sgd_step("ERM")) / beta)
    xi = torch.stack(drawn).flatten()
    assert xi.mean().abs() < 4 / len(xi) ** 0.5
    assert (xi.std() - 1).abs() < 4 / (2 * len(xi)) ** 0.5


@one_thread()
@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("random_walk", [False, True])
@pytest.mark.parametrize("tolerance", [0.1, 1e-3, 0.0])
def test_gga_raises_the_smallest_cosine_within_the_loss_tolerance(network, random_walk, tolerance):
    model, (batch,) = network(), batches((2, 3, 4), 1, NETWORKS[network])
    domains = list(batch.domains())
    head = model.classifier.weight.detach().clone()
    cosine_before, loss_before = smallest_cosine_and_loss(model, domains)
    hparams = SEARCH | {"trials": 20, "radius": 0.05, "tolerance": tolerance, "random_walk": random_walk}
    made = algorithm("GGA", model, **hparams)
    torch.manual_seed(3)
    metrics = made.search(batch)
    cosine_after, loss_after = smallest_cosine_and_loss(model, domains)
    assert metrics["accepted"] > 0
    assert cosine_after > cosine_before
    acceptances = int(metrics["accepted"]) if random_walk else 1
    assert loss_after - loss_before < acceptances * tolerance
    assert_close(metrics["cosine_before"], cosine_before, 1e-12)
    assert_close(metrics["cosine_after"], cosine_after, 1e-12)
    assert_same_bits(model.classifier.weight.detach(), head)


def test_gga_candidates_stay_in_the_neighbourhood():
    """Without the random walk no featurizer weight leaves θ ± r."""
    model, (batch,) = mlp(), batches((3, 3, 3), 1)
    before = weights(model)
    metrics = algorithm("GGA", model, radius=0.05, **SEARCH).search(batch)
    assert metrics["accepted"] > 0
    distance = (weights(model) - before).abs().max()
    assert 0.04 < distance <= 0.05


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("scale_by_weight", [True, False])
def test_sage_perturbation_of_every_parameter(network, scale_by_weight):
    """What reaches the second pass: ρ ‖W‖_F Q for tensors of two and more dimensions, ρ g / ‖g‖ for the others."""
    model, (batch,), rho = network(), batches((2, 3, 4), 1, NETWORKS[network]), 0.02
    made = algorithm("SAGE", model, rho=rho, scale_by_weight=scale_by_weight)
    clean = [p.detach().clone() for p in made.params]
    _, g = loss_and_gradient(model, list(batch.domains()))
    seen, forward = [], made.gradient

    def gradient(batch):
        seen.extend(p.detach() - q for p, q in zip(made.params, clean, strict=True))
        return forward(batch)

    made.gradient = gradient
    metrics = made.update(batch)
    assert_close(metrics["epsilon_norm"], flat(seen).norm(), 1e-12)
    start = 0
    for W, epsilon in zip(clean, seen, strict=True):
        G = g[start : start + W.numel()].reshape(W.shape)
        start += W.numel()
        size = W.norm() if scale_by_weight else 1.0
        expected = size * polar_factor(G.flatten(1)).reshape(W.shape) if W.ndim > 1 else G / G.norm()
        assert_close(epsilon, rho * expected, 1e-12)


def test_sam_moves_by_rho_and_sagm_by_rho_less_alpha_times_the_gradient():
    model, (batch,) = cnn(), batches((3, 3, 3), 1, NETWORKS[cnn])
    _, g = loss_and_gradient(model, list(batch.domains()))
    assert_close(algorithm("SAM", cnn(), rho=0.05).update(batch)["epsilon_norm"], 0.05, 1e-8)
    moved = algorithm("SAGM", cnn(), rho=0.05, alpha=0.02).update(batch)["epsilon_norm"]
    assert_close(moved, (0.05 - 0.02 * g.norm()).abs(), 1e-10)
