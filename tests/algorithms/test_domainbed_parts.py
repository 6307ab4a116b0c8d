"""Parts of DomainBed's methods: masks, discriminators, gradients of rows, bottlenecks, and what they refuse."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm_cases import CLASSES, IMAGE, algorithm, batch_norm_mlp, batches, mlp, run, weights
from helpers import assert_same, on_cpu, small_config
from helpers import run as train
from helpers import weights as saved_weights
from properties import assert_close, assert_same_bits
from torch import nn

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.algorithms.rsc import quantile
from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.models import Model
from domainbed_sage.models.clip import ScaledLinear
from domainbed_sage.models.optimizers import adam
from domainbed_sage.training import verify
from domainbed_sage.training.assessment import assess

GOLDENS = Path(__file__).parents[1] / "data" / "goldens.npz"
EQUAL, UNEQUAL = (3, 3, 3), (2, 3, 4)


def copies(network):
    return [t.clone() for t in network.state_dict().values()]


# Annealing


@pytest.mark.parametrize("name", ["IRM", "VREx", "Fishr"])
def test_the_optimizer_starts_anew_with_the_penalty(name):
    """Adam counts its steps: 1, 2, then 1 again at the step that anneals."""
    prefix = {"IRM": "irm_", "VREx": "vrex_", "Fishr": ""}[name]
    made, counts = algorithm(name, mlp(), **{f"{prefix}penalty_anneal_iters": 2}), []
    for step, batch in enumerate(batches(EQUAL)):
        made.step = step
        made.update(batch)
        counts.append(int(made.optimizer.state[made.params[0]]["step"]))
    assert counts == [1, 2, 1, 2]


# DANN, CDANN


@pytest.mark.parametrize("name", ["DANN", "CDANN"])
@pytest.mark.parametrize(("d", "turns"), [(1, "gdgdgd"), (2, "dgddgd"), (4, "dddgdd")])
def test_network_and_discriminator_take_turns(name, d, turns):
    """One of them moves, and the other keeps every bit of its weights and of its optimizer's state."""
    made, found = algorithm(name, mlp(), d_steps_per_g_step=d, grad_penalty=0.1), ""
    for step, batch in enumerate(batches(EQUAL, 6)):
        before, of_discriminator = weights(made.model), copies(made.networks)
        made.step = step
        metrics = made.update(batch)
        network_kept = torch.equal(weights(made.model), before)
        kept = [torch.equal(a, b) for a, b in zip(copies(made.networks), of_discriminator, strict=True)]
        assert network_kept is not all(kept)
        found += "d" if network_kept else "g"
        assert bool(metrics["loss"] == metrics["disc_loss"]) is network_kept
    assert found == turns
    counts = [
        int(o.state[p[0]]["step"])
        for o, p in ((made.optimizer, made.params), (made.adversary_optimizer, made.adversary))
    ]
    assert counts == [turns.count("g"), turns.count("d")]


def test_discriminator_has_an_optimizer_of_its_own():
    """Its learning rate and weight decay are its own, its betas those of the network's."""
    make_optimizer = partial(adam, lr=1e-2, weight_decay=1e-3, beta1=0.5, beta2=0.9)
    made = algorithm("DANN", mlp(), make_optimizer=make_optimizer, lr_d=2e-3, weight_decay_d=1e-4)
    (group,) = made.adversary_optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (2e-3, 1e-4, (0.5, 0.9))
    config = small_config("DANN")
    assert (config.hparams["beta1"], config.hparams["beta2"]) == (0.5, 0.9)


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "fixed features"])
def test_gradient_penalty_by_differences(frozen):
    """Mean squared length of the gradient of each row's own cross-entropy with respect to its features."""
    model, (batch,) = mlp(), batches(UNEQUAL, 1)
    model.featurizer.requires_grad_(not frozen)
    made = algorithm("DANN", model, grad_penalty=1.0, mlp_width=8)
    features, domain = made.features(batch.x), torch.tensor([0] * 2 + [1] * 3 + [2] * 4)
    rows = [
        torch.func.grad(lambda z, k=k: F.cross_entropy(made.discriminator(z[None]), k[None]))(z)
        for z, k in zip(features.detach(), domain, strict=True)
    ]
    penalty = sum(row.square().sum() for row in rows) / len(rows)
    plain = F.cross_entropy(made.discriminator(features), domain)
    assert_close(made.discriminator_loss(features, batch).detach(), (plain + penalty).detach(), 1e-12)
    made.update(batch)


def test_cdann_weighs_the_classes_alike():
    made = algorithm("CDANN", mlp())
    y = torch.tensor([0, 0, 0, 1, 3])
    assert_close(made.row_weights(y), torch.tensor([1 / 12, 1 / 12, 1 / 12, 1 / 4, 1 / 4]), 1e-8)
    rounded = algorithm("CDANN", mlp(), round_weights=True).row_weights(y)
    assert rounded[0] == torch.tensor(1 / 12, dtype=torch.float32) != made.row_weights(y)[0]


# RSC


@pytest.mark.parametrize("n", [1, 2, 5, 16])
@pytest.mark.parametrize("q", [0.0, 0.3, 2 / 3, 1 - 1 / 3, 0.8, 1.0])
def test_quantile_is_numpys(n, q):
    values = torch.randn(7, n, generator=torch.Generator().manual_seed(n))
    expected = np.percentile(values.double().numpy(), 100 * q, axis=1)
    assert_close(quantile(values, q), expected, 1e-15)


@pytest.mark.parametrize(("f", "b", "muted"), [(0.0, 0.0, 1), (0.0, 1.0, 9), (1.0, 1.0, 45), (1.0, 0.0, 5)])
def test_rsc_mutes_shares_of_features_and_rows(f, b, muted):
    """Of 9 rows of 5 features; the largest is always at its quantile."""
    (batch,) = batches(UNEQUAL, 1)
    made = algorithm("RSC", mlp(), rsc_f_drop_factor=f, rsc_b_drop_factor=b)
    assert int((made.mask(made.features(batch.x), batch.y) == 0).sum()) == muted


def test_rsc_with_fixed_features():
    model, (batch,) = mlp(), batches(UNEQUAL, 1)
    model.featurizer.requires_grad_(False)
    before = weights(model)
    algorithm("RSC", model).update(batch)
    assert not torch.equal(weights(model), before)


# SelfReg


def test_selfreg_partners_are_of_the_same_class():
    made, (batch,) = algorithm("SelfReg", mlp()), batches((6, 6, 6), 1)
    torch.manual_seed(0)
    order = made.draws.sort("order", batch.y)
    y = batch.y[order]
    assert y.tolist() == sorted(batch.y.tolist())
    drawn = [made.draws.within("perm1", y) for _ in range(20)]
    assert all(torch.equal(y[partner], y) for partner in drawn)
    assert all(sorted(partner.tolist()) == list(range(18)) for partner in drawn)
    assert len({tuple(partner.tolist()) for partner in drawn}) > 10


def test_selfreg_never_trains_its_projection():
    made = algorithm("SelfReg", mlp())
    before = [p.clone() for p in made.project.parameters()]
    run(made, batches(EQUAL))
    for p, q in zip(made.project.parameters(), before, strict=True):
        assert_same_bits(p, q)


def test_selfreg_doubles_the_features_but_for_resnet50():
    for features, hidden in ((5, 10), (2048, 2048)):
        model = Model(nn.Linear(6, features), nn.Linear(features, 3), IMAGE).double()
        assert algorithm("SelfReg", model).project[0].out_features == hidden


# Fishr


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [None, 3.0])
def test_gradients_of_rows_are_those_of_autograd(scale, bias):
    model, (batch,) = mlp(), batches(UNEQUAL, 1)
    head = nn.Linear(5, CLASSES, bias=bias) if scale is None else ScaledLinear(5, CLASSES, scale, bias)
    model.classifier = head.double()
    made = algorithm("Fishr", model)
    features = made.features(batch.x)
    ours = made.row_gradients(features, made.classify(features), batch.y)
    for row, x, y in zip(ours, batch.x, batch.y, strict=True):
        grads = torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), list(head.parameters()))
        assert_close(row.detach(), torch.cat([g.flatten() for g in grads]), 1e-12)
    made.update(batch)


# What they refuse


def problem(num_domains=3, batch_size=0, classifier=None):
    model = mlp()
    model.classifier = classifier or model.classifier
    return Problem(model, partial(adam, lr=1e-2), num_domains, "fp64", batch_size=batch_size)


@pytest.mark.parametrize("name", ["DANN", "CDANN", "IIB", "SelfReg", "Fishr"])
def test_a_classifier_that_is_not_linear(name):
    head = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, CLASSES)).double()
    with pytest.raises(UserError, match=rf"{name} needs a linear classifier.* Found Sequential"):
        algorithms[name](problem(classifier=head))


@pytest.mark.parametrize("name", ["Mixup", "MLDG"])
def test_one_domain_has_no_partner(name):
    with pytest.raises(UserError, match=rf"{name} needs at least 2 source domains\. Found 1\."):
        algorithms[name](problem(num_domains=1))


@pytest.mark.parametrize("name", ["IRM", "CORAL", "SelfReg", "IIB"])
def test_one_row_is_too_few(name):
    with pytest.raises(UserError, match=rf"{name} needs at least 2 rows .*batch_size.* Found 1\."):
        algorithms[name](problem(batch_size=1))
    algorithms[name](problem(batch_size=2))


@pytest.mark.parametrize(("K", "n_meta_test"), [(2, 2), (3, 3), (3, 5)])
def test_mldg_leaves_a_domain_to_train_on(K, n_meta_test):
    with pytest.raises(UserError, match=rf"n_meta_test should be less than their number, {K}\. Found {n_meta_test}\."):
        algorithms["MLDG"](problem(num_domains=K), n_meta_test=n_meta_test)
    algorithms["MLDG"](problem(num_domains=K), n_meta_test=K - 1)


def test_iib_refuses_domains_of_different_sizes():
    made, (batch,) = algorithm("IIB", mlp()), batches(UNEQUAL, 1)
    before = weights(made.model)
    with pytest.raises(UserError, match=r"IIB needs equally many rows of every source domain.* Found \(2, 3, 4\)"):
        made.update(batch)
    assert_same_bits(weights(made.model), before)


# Restart, and the weights of a finished run


@pytest.mark.parametrize("name", ["DANN", "CDANN", "IIB", "GroupDRO", "SelfReg", "Fishr", "IRM"])
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, name):
    anneal = {"IRM": {"irm_penalty_anneal_iters": 1}, "Fishr": {"penalty_anneal_iters": 1}}.get(name, {})
    config, stop = small_config(name, steps=3, hparams=anneal), threading.Event()
    whole = train(config, tmp_path / "whole")
    stop.set()
    with pytest.raises(Stopped):
        train(config, tmp_path / "stopped", stop=stop)
    assert_same(train(config, tmp_path / "stopped"), whole)


@pytest.mark.parametrize("freeze_bn", [False, True])
@pytest.mark.parametrize("enable_bn", [False, True])
def test_iib_trains_the_batch_norm_of_its_encoder_alone(freeze_bn, enable_bn):
    """In training mode its layers use the minibatch, whatever freeze_bn says of the network; never in eval."""
    made = algorithm("IIB", batch_norm_mlp(freeze_bn), enable_bn=enable_bn)
    encoder = [m for m in made.networks["encoder"].modules() if isinstance(m, nn.BatchNorm1d)]
    (backbone,) = made.problem.model.batch_norms()
    assert len(encoder) == 2 * enable_bn
    for _ in range(2):
        assert {m.training for m in encoder} == ({True} if enable_bn else set())
        assert backbone.training is not freeze_bn
        made.model.eval()
        assert not any(m.training for m in (*encoder, backbone))
        made.model.train()


def test_iib_predicts_without_noise_the_class_of_the_mean():
    made, (batch,) = algorithm("IIB", mlp()), batches(EQUAL, 1)
    made.model.eval()
    with torch.no_grad():
        mean, _ = made.encoded.moments(batch.x).chunk(2, 1)
        assert_close(made.forward(batch.x), made.problem.model.classifier(mean), 1e-12)
        assert_same_bits(made.forward(batch.x), made.forward(batch.x))


def test_iib_is_evaluated_with_its_encoder(tmp_path):
    """`model.pkl` holds it, and the accuracies of the record are found again."""
    folder = train(small_config("IIB", steps=2), tmp_path / "run")
    assert "featurizer.encoder.0.weight" in saved_weights(folder)
    results = assess(folder, on_cpu(folder)).results
    assert sum(not np.isnan(result.recorded) for result in results) == 5
    assert not any(result.differs for result in results)


@pytest.mark.parametrize("method", ["IIB+noise", "IIB+noise_nobn"])
def test_golden_iib_outside_its_network(method):
    """Encoder and second classifier after every step of a free run, and the predictions in evaluation mode at its end.

    The latter need the running statistics of the encoder's BatchNorm, which nothing else shows.
    """
    info, arrays = verify._read(GOLDENS)
    made = verify._Replay(method, info["hparams"][method], info["param_order"], arrays).made()
    for t, (x, y) in enumerate(zip(arrays["x"], arrays["y"], strict=True)):
        batch = DomainBatch(torch.tensor(x).flatten(0, 1), torch.tensor(y).flatten(), (len(y[0]),) * len(y))
        made.step = t
        made.update(batch)
        order = info["records"][method]["extra_param_order"]
        ours = torch.cat([made.networks.get_parameter(name).detach().flatten() for name in order])
        assert_close(ours, arrays[f"{method}/extra_params"][t], 1e-9 * ours.abs().max())
    made.model.eval()
    logits = made.forward(batch.x).detach()
    assert_close(logits, arrays[f"{method}/eval_logits"], 1e-9 * logits.abs().max())
