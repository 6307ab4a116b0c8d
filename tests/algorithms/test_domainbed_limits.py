"""Methods of DomainBed: which of them become which, and which settings count."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from algorithm_cases import NETWORKS, algorithm, batches, mlp, run, trajectory, weights
from properties import assert_close
from reference.literals import loss_and_gradient
from reference.sage_literal import domain_gradients, flat

from domainbed_sage.algorithms.draws import Draws
from domainbed_sage.models.optimizers import sgd

AT_ONCE = {"irm_penalty_anneal_iters": 0}
LATE = {"penalty_anneal_iters": 9}
EQUAL, UNEQUAL = (3, 3, 3), (2, 3, 4)

# The method with these hyperparameters is ERM, on domains of these sizes.
ERM_LIMITS = [
    ("IRM", {"irm_lambda": 0.0} | AT_ONCE, EQUAL),
    ("VREx", {"vrex_lambda": 0.0, "vrex_penalty_anneal_iters": 0}, EQUAL),
    ("VREx", {"vrex_lambda": 9.0, "vrex_penalty_anneal_iters": 0}, (5,)),
    ("GroupDRO", {"groupdro_eta": 0.0}, EQUAL),
    ("GroupDRO", {"groupdro_eta": 0.5}, (5,)),
    ("SD", {"sd_reg": 0.0}, UNEQUAL),
    ("MMD", {"mmd_gamma": 0.0}, EQUAL),
    ("MMD", {"mmd_gamma": 0.7}, (5,)),
    ("CORAL", {"mmd_gamma": 0.0}, EQUAL),
    ("CORAL", {"mmd_gamma": 0.7}, (5,)),
    ("Fishr", {"lambda_weight": 100.0} | LATE, UNEQUAL),
    ("Fishr", {"lambda_weight": 0.0, "penalty_anneal_iters": 0}, UNEQUAL),
    ("Fishr", {"lambda_weight": 100.0, "penalty_anneal_iters": 0}, (5,)),
]

# Settings that do count: the trajectories of the method with the first and the second hyperparameters part.
DIFFERENCES = [
    ("IRM", {"irm_lambda": 2.0} | AT_ONCE, {"irm_lambda": 1.0} | AT_ONCE),
    ("IRM", {"irm_penalty_anneal_iters": 1}, {"irm_penalty_anneal_iters": 3}),
    ("VREx", {"vrex_lambda": 1.0, "vrex_penalty_anneal_iters": 2}, {"vrex_lambda": 1.0}),  # Adam starts anew
    ("VREx", {"vrex_penalty_anneal_iters": 0}, {"vrex_penalty_anneal_iters": 3}),
    ("GroupDRO", {"groupdro_eta": 0.5}, {"groupdro_eta": 0.0}),
    ("SD", {"sd_reg": 0.1}, {"sd_reg": 0.0}),
    ("MMD", {"mmd_gamma": 1.0}, {"mmd_gamma": 0.0}),
    ("CORAL", {"mmd_gamma": 1.0}, {"mmd_gamma": 0.0}),
    ("RSC", {"rsc_f_drop_factor": 0.5}, {"rsc_f_drop_factor": 0.2}),
    ("RSC", {"rsc_b_drop_factor": 0.5}, {"rsc_b_drop_factor": 0.0}),
    ("DANN", {"lambda_weight": 0.5}, {"lambda_weight": 0.0}),
    ("DANN", {"d_steps_per_g_step": 1}, {"d_steps_per_g_step": 2}),
    ("DANN", {"grad_penalty": 1.0}, {"grad_penalty": 0.0}),
    ("DANN", {"lr_d": 1e-2}, {"lr_d": 1e-3}),
    ("DANN", {"weight_decay_d": 1.0, "lr_d": 1e-2}, {"weight_decay_d": 0.0, "lr_d": 1e-2}),
    ("DANN", {"mlp_depth": 2}, {"mlp_depth": 4}),
    ("DANN", {"mlp_dropout": 0.5}, {"mlp_dropout": 0.0}),
    ("CDANN", {"lambda_weight": 0.5}, {"lambda_weight": 0.0}),
    ("IIB", {"lambda_beta": 0.1}, {"lambda_beta": 0.0}),
    ("IIB", {"lambda_inv_risks": 10.0}, {"lambda_inv_risks": 0.0}),
    ("Mixup", {"mixup_alpha": 0.2}, {"mixup_alpha": 5.0}),
    ("MLDG", {"mldg_beta": 1.0}, {"mldg_beta": 0.0}),
    ("MLDG", {"n_meta_test": 1}, {"n_meta_test": 2}),
    ("Fishr", {"lambda_weight": 100.0, "penalty_anneal_iters": 0}, {"lambda_weight": 0.0, "penalty_anneal_iters": 0}),
    ("Fishr", {"ema": 0.9, "penalty_anneal_iters": 0}, {"ema": 0.5, "penalty_anneal_iters": 0}),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("name", "hparams", "sizes"), ERM_LIMITS)
def test_it_is_erm(name, hparams, sizes, network):
    assert_close(trajectory(name, sizes, network=network, **hparams), trajectory("ERM", sizes, network=network))


@pytest.mark.parametrize(("name", "one", "other"), DIFFERENCES)
def test_setting_counts(name, one, other):
    distance = trajectory(name, EQUAL, **one) - trajectory(name, EQUAL, **other)
    assert distance[-1].abs().max() > 1e-6


def direction(name, sizes, **hparams):
    """The direction of one update, and the metrics: with lr 1 and no momentum, θ before minus θ after."""
    model, (batch,) = mlp(), batches(sizes, 1)
    before = weights(model)
    torch.manual_seed(3)
    made = algorithm(name, model, len(sizes), make_optimizer=partial(sgd, lr=1.0, momentum=0.0), **hparams)
    metrics = made.update(batch)
    return before - weights(model), metrics


def test_generator_steps_without_the_adversary_are_erm():
    """With λ = 0, every other step is one of ERM on its minibatch, and the others do nothing to the network."""
    there = batches(UNEQUAL, 6)
    ours = run(algorithm("DANN", mlp(), lambda_weight=0.0, d_steps_per_g_step=1), there)
    theirs = run(algorithm("ERM", mlp()), there[::2])
    assert_close(ours[::2], theirs)
    assert torch.equal(ours[1::2], ours[::2])


def test_groupdro_with_a_large_step_follows_the_worst_domain():
    model, (batch,) = mlp(), batches(UNEQUAL, 1)
    losses, g = domain_gradients(model, list(batch.domains()))
    worst = max(range(3), key=lambda k: losses[k])
    moved, metrics = direction("GroupDRO", UNEQUAL, groupdro_eta=1e4)
    assert_close(moved, g[worst])
    assert_close(metrics["loss"], losses[worst])
    assert metrics["largest_weight"] == 1


def test_mldg_without_its_test_is_the_sum_over_the_training_domains():
    """Each of the K domains is for testing in a third of the shuffles; here the order is given."""
    model, (batch,) = mlp(), batches(EQUAL, 1)
    _, g = domain_gradients(model, list(batch.domains()))
    torch.manual_seed(3)
    order = torch.randperm(3).tolist()
    moved, _ = direction("MLDG", EQUAL, mldg_beta=0.0, n_meta_test=1)
    assert_close(moved, (g[order[0]] + g[order[1]]) / 3)


@pytest.mark.parametrize(("n_meta_test", "pairs"), [(1, [(0, 2), (1, 2)]), (2, [(0, 1)])])
def test_mldg_on_domains_of_different_sizes(n_meta_test, pairs):
    """Pairs in the drawn order, cut to the rows of the smaller one; θ' = θ - g_i, one step of SGD with lr 1."""
    (batch,), expected, loss = batches((2, 5, 3), 1), 0.0, 0.0
    domains = list(batch.domains())
    torch.manual_seed(3)
    order = torch.randperm(3).tolist()
    for i, j in pairs:
        (x, y), (x_test, y_test) = domains[order[i]], domains[order[j]]
        n, network = min(len(y), len(y_test)), mlp()
        loss_i, g_i = loss_and_gradient(network, [(x[:n], y[:n])])
        torch.nn.utils.vector_to_parameters(weights(network) - g_i, network.parameters())
        loss_j, g_j = loss_and_gradient(network, [(x_test[:n], y_test[:n])])
        expected, loss = expected + (g_i + 0.7 * g_j) / 3, loss + (loss_i + 0.7 * loss_j) / 3
    moved, metrics = direction("MLDG", (2, 5, 3), mldg_beta=0.7, n_meta_test=n_meta_test)
    assert_close(moved, expected)
    assert_close(metrics["loss"], loss)


def test_mixup_on_domains_of_different_sizes():
    """Every domain with the next one in the drawn order, the first rows of the larger one."""
    (batch,), model, losses = batches((2, 5, 3), 1), mlp(), []
    domains = list(batch.domains())
    torch.manual_seed(3)
    order = torch.randperm(3).tolist()
    alpha = torch.full((3,), 0.4, dtype=torch.float64)
    lambdas = torch.distributions.Beta(alpha, alpha).sample().tolist()
    for i, lam in enumerate(lambdas):
        (x, y), (x2, y2) = domains[order[i]], domains[order[(i + 1) % 3]]
        n = min(len(y), len(y2))
        log_p = model(lam * x[:n] + (1 - lam) * x2[:n]).log_softmax(1)
        losses += [-sum(lam * row[a] + (1 - lam) * row[b] for row, a, b in zip(log_p, y, y2, strict=False)) / n]
    loss = sum(losses) / 3
    expected = flat(torch.autograd.grad(loss, list(model.parameters())))
    moved, metrics = direction("Mixup", (2, 5, 3), mixup_alpha=0.4)
    assert_close(metrics["loss"], loss.detach())
    assert_close(moved, expected)


class Noted(Draws):
    """Draws as always, and remembers what."""

    def __init__(self):
        self.drawn = {}

    def beta(self, name, alpha, n):
        return self.drawn.setdefault(name, super().beta(name, alpha, n))

    def sort(self, name, values):
        return self.drawn.setdefault(name, super().sort(name, values))

    def within(self, name, sorted_groups):
        return self.drawn.setdefault(name, super().within(name, sorted_groups))


@pytest.mark.parametrize("sharpness", [1.0, 0.1, 10.0], ids=["as it is", "above one", "below one"])
def test_selfreg_row_by_row(sharpness):
    """The factor min(CE, 1) has no gradient on either side of 1; the recording is above it throughout."""
    model, (batch,) = mlp(), batches((2, 5, 3), 1)
    model.classifier.weight.data *= sharpness
    batch = replace(batch, y=model(batch.x).argmax(1))
    made = algorithm("SelfReg", model, make_optimizer=partial(sgd, lr=1.0, momentum=0.0))
    made.draws, before = Noted(), weights(model)
    metrics = made.update(batch)
    moved = before - weights(model)
    torch.nn.utils.vector_to_parameters(before, model.parameters())
    (lam,), order = made.draws.drawn["lam"], made.draws.drawn["order"]
    features = model.featurizer(batch.x[order])
    z, o, c = features, model.classifier(features), made.project(features)
    terms, N = [], len(z)
    for n, (i, j) in enumerate(zip(made.draws.drawn["perm1"], made.draws.drawn["perm2"], strict=True)):
        pairs = [(lam, o[i], c[i]), (1 - lam, lam * o[i] + (1 - lam) * o[j], lam * c[i] + (1 - lam) * c[j])]
        terms += [w * (((o[n] - o2) ** 2).mean() + 0.3 * ((z[n] - c2) ** 2).mean()) for w, o2, c2 in pairs]
    nll = F.cross_entropy(o, batch.y[order])
    factor = min(float(nll.detach()), 1.0)
    assert (factor < 1) is (sharpness == 10.0)
    loss = nll + factor * sum(terms) / N
    assert_close(metrics["loss"], loss.detach())
    assert_close(moved, flat(torch.autograd.grad(loss, list(model.parameters()))))
