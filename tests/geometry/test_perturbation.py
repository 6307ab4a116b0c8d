"""Perturbed weights are restored, BatchNorm statistics stay clean, and the first perturbation is measured."""

import copy
import logging
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from algorithm_cases import CLASSES, IMAGE, SETTINGS, algorithm, batch_norm_mlp, batches, fitting, mlp, one_thread, run
from properties import assert_close, assert_same_bits
from reference import sage_literal
from torch import nn

from domainbed_sage.algorithms import Algorithm, algorithms, objectives
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import perturbed
from domainbed_sage.models import Model
from domainbed_sage.models.optimizers import sgd


def random_like(params, scale=1e-3):
    generator = torch.Generator().manual_seed(5)
    return tuple(scale * torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in params)


def copies(tensors):
    return [t.detach().clone() for t in tensors]


def assert_all_same_bits(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert_same_bits(a, b)


class Interrupted(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ending", [nullcontext(), pytest.raises(Interrupted)], ids=["normal", "exception"])
def test_weights_come_back_bit_for_bit(dtype, ending):
    torch.manual_seed(0)
    params = tuple(nn.Linear(64, 64).double().to(dtype).parameters())
    epsilon, clean = random_like(params, 0.1), copies(params)
    moved = [p + e for p, e in zip(clean, epsilon, strict=True)]
    assert not torch.equal(moved[0] - epsilon[0], clean[0])  # subtracting epsilon would not do
    with ending, perturbed(params, epsilon):
        assert_all_same_bits(params, moved)
        if not isinstance(ending, nullcontext):
            raise Interrupted
    assert_all_same_bits(params, clean)


def test_exception_in_the_second_pass_leaves_the_clean_model():
    model = batch_norm_mlp(freeze_bn=False)
    made, (batch,) = algorithm("SAM", model), batches((3, 3, 3), 1)
    made.gradient(batch)
    clean = copy.deepcopy(model.state_dict())

    def second_pass():
        with made.perturbed(random_like(made.params)):
            made.gradient(batch)
            raise Interrupted

    with pytest.raises(Interrupted):
        second_pass()
    assert_all_same_bits(model.state_dict().values(), clean.values())
    assert [m.momentum for m in model.batch_norms()] == [0.1]


@pytest.mark.parametrize(("name", "hparams"), SETTINGS)
def test_update_without_a_step_leaves_the_clean_weights(name, hparams):
    """With lr 0 no weight moves; step 0 is before GGA's window."""
    model = mlp()
    before = copies(model.parameters())
    made = algorithm(name, model, make_optimizer=partial(torch.optim.SGD, lr=0.0), **hparams)
    (batch,) = batches(fitting(name, (2, 3, 4)), 1)
    run(made, [batch])
    assert_all_same_bits(model.parameters(), before)


def statistics(model):
    (norm,) = model.batch_norms()
    return copies([norm.running_mean, norm.running_var, norm.num_batches_tracked])


def passes_once_at_clean_weights(name):
    """Fish passes at other weights before and after; who ends in an average needs frozen statistics."""
    return name not in ("Mixup", "MLDG", "Fish", "ZeroShot") and algorithms[name].finish is Algorithm.finish


@pytest.mark.parametrize("momentum", [0.1, None], ids=["moving", "cumulative"])
@pytest.mark.parametrize(("name", "hparams"), [row for row in SETTINGS if passes_once_at_clean_weights(row.values[0])])
def test_batch_norm_statistics_are_those_of_the_clean_weights(name, hparams, momentum):
    """After one update the running statistics are those after one forward pass at θ.

    For every method that passes the minibatch as it is: not for Mixup and MLDG.
    """
    (batch,) = batches(fitting(name, (2, 3, 4)), 1)
    model, other = batch_norm_mlp(freeze_bn=False), batch_norm_mlp(freeze_bn=False)
    for m in (*model.batch_norms(), *other.batch_norms()):
        m.momentum = momentum
    other(batch.x)
    made = algorithm(name, model, make_optimizer=sgd, **hparams)
    made.update(batch)  # step 0: before GGA's window
    assert_all_same_bits(statistics(model), statistics(other))
    assert [m.momentum for m in model.batch_norms()] == [momentum]


@pytest.mark.parametrize("meta_lr", [0.0, 0.3, 1.0])
def test_fish_moves_the_statistics_as_it_moves_the_weights(meta_lr):
    (batch,) = batches((2, 3, 4), 1)
    model, other = batch_norm_mlp(freeze_bn=False), batch_norm_mlp(freeze_bn=False)
    (mean, var, _), (there, spread, count) = (statistics(m) for m in (model, walked_through(other, batch)))
    algorithm("Fish", model, make_optimizer=sgd, meta_lr=meta_lr).update(batch)
    found = statistics(model)
    assert_close(found[0], mean + meta_lr * (there - mean), 1e-12)
    assert_close(found[1], var + meta_lr * (spread - var), 1e-12)
    assert found[2] == count == 3


def walked_through(model, batch):
    """The network after a step on every domain."""
    erm = algorithm("ERM", model, make_optimizer=sgd)
    for x, y in batch.domains():
        erm.update(DomainBatch(x, y, (len(y),)))
    return model


def test_zero_shot_changes_nothing():
    (batch,) = batches((2, 3, 4), 1)
    model = batch_norm_mlp(freeze_bn=False)
    before = copy.deepcopy(model.state_dict())
    run(algorithm("ZeroShot", model), [batch] * 2)
    assert_all_same_bits(model.state_dict().values(), before.values())


@pytest.mark.parametrize("random_walk", [False, True])
def test_gga_candidates_leave_batch_norm_statistics_alone(random_walk):
    (batch,) = batches((2, 3, 4), 1)
    model, other = batch_norm_mlp(freeze_bn=False), batch_norm_mlp(freeze_bn=False)
    other(batch.x)
    hparams = {"radius": 0.05, "start": 0, "end": 0, "trials": 5, "random_walk": random_walk}
    algorithm("GGA", model, **hparams).search(batch)
    assert_all_same_bits(statistics(model), statistics(other))


@pytest.mark.parametrize(("name", "hparams"), SETTINGS)
def test_frozen_batch_norm_keeps_its_statistics(name, hparams):
    model = batch_norm_mlp(freeze_bn=True)
    before = statistics(model)
    run(algorithm(name, model, **hparams), batches(fitting(name, (2, 3, 4))))
    assert_all_same_bits(statistics(model), before)


class NoStatistics(nn.BatchNorm1d):
    """Uses the statistics of the batch in every mode."""

    def __init__(self, features):
        super().__init__(features, track_running_stats=False)


def batch_statistics_mlp():
    torch.manual_seed(0)
    return Model(
        nn.Sequential(nn.Linear(6, 8), NoStatistics(8), nn.ReLU()), nn.Linear(8, CLASSES), IMAGE, freeze_bn=True
    ).double()


@one_thread()
@pytest.mark.parametrize("sizes", [(4,), (3, 3, 3), (1, 3, 6)], ids=str)
@pytest.mark.parametrize(
    ("build", "mixes"),
    [
        (mlp, False),
        (partial(batch_norm_mlp, True), False),
        (partial(batch_norm_mlp, False), True),
        (batch_statistics_mlp, True),
    ],
    ids=["no BatchNorm", "frozen", "batch statistics", "no running statistics"],
)
def test_domain_gradients_equal_those_of_one_joint_graph(build, mixes, sizes):
    model, (batch,) = build(), batches(sizes, 1)
    assert model.mixes_samples is mixes
    losses, grads = algorithm("ERM", model).domain_gradients(batch)
    literal_losses, literal = sage_literal.domain_gradients(build(), list(batch.domains()))
    for ours, theirs in zip(grads, literal, strict=True):
        assert_close(sage_literal.flat(ours), theirs, 1e-12)
    assert_close(losses, torch.stack(literal_losses), 1e-12)


def test_the_dear_way_is_said_once(caplog):
    objectives._note_joint_graph.cache_clear()
    (batch,) = batches((3, 3, 3), 1)
    with caplog.at_level(logging.INFO):
        algorithm("ERM", batch_norm_mlp(freeze_bn=True)).domain_gradients(batch)
        assert not caplog.records
        for _ in range(2):
            algorithm("ERM", batch_norm_mlp(freeze_bn=False)).domain_gradients(batch)
    assert ["K backward passes" in record.message for record in caplog.records] == [True]


def test_joint_graph_counts_where_samples_are_mixed():
    """Domain by domain, batch statistics would be another network: the two ways differ there, so both are needed."""
    (batch,) = batches((3, 3, 3), 1)
    made = algorithm("ERM", batch_norm_mlp(freeze_bn=False))
    _, joint = made.domain_gradients(batch)
    x, y = next(batch.domains())
    _, alone = made.gradient_of(made.loss(x, y))
    assert (sage_literal.flat(joint[0]) - sage_literal.flat(alone)).abs().max() > 1e-2
