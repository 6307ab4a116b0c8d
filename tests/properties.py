"""What has to hold for every algorithm, as named assertions."""

import copy

import torch
from algorithm_cases import NETWORKS, algorithm, batches, mlp, one_thread, run, weights
from reference.all_literals import LITERALS
from torch.optim import Adam

from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import Survival


def assert_close(ours, theirs, tolerance=1e-9):
    torch.testing.assert_close(ours, torch.as_tensor(theirs, dtype=ours.dtype), rtol=0, atol=tolerance)


def assert_same_bits(ours, theirs):
    assert torch.equal(ours, theirs)


@one_thread()
def assert_equals_literal(name, hparams, network, sizes):
    """Weights after every step, and every number that both report, agree with the literal reference to 1e-9."""
    ours = algorithm(name, network(), len(sizes), **hparams)
    theirs = network()
    optimizer = Adam(theirs.parameters(), lr=1e-2, weight_decay=1e-3)
    for t, batch in enumerate(batches(sizes, shape=NETWORKS[network])):
        ours.step = t
        torch.manual_seed(t)
        metrics = ours.update(batch)
        torch.manual_seed(t)
        literal = LITERALS[name](theirs, optimizer, list(batch.domains()), t, **hparams)
        assert_close(weights(ours.model), weights(theirs))
        for key, value in literal.items():
            assert_close(metrics[key], value)


def permuted(batch):
    """The same domains in another order, the rows of each in another order."""
    domains = [(x.flip(0), y.flip(0)) for x, y in batch.domains()]
    domains = [*domains[1:], domains[0]]
    x, y = (torch.cat(parts) for parts in zip(*domains, strict=True))
    return DomainBatch(x, y, tuple(len(y) for _, y in domains))


def assert_domain_order_invariant(name, hparams, sizes):
    there = batches(sizes)
    original, other = (run(algorithm(name, mlp(), len(sizes), **hparams), b) for b in (there, map(permuted, there)))
    assert_close(original, other, 1e-10)


def assert_parameter_untouched(name, hparams, model, parameter, num_domains, make_optimizer):
    """Updates move the weights, of a method that trains any, but not this parameter, which keeps every bit."""
    before, all_before = model.get_parameter(parameter).detach().clone(), weights(model)
    made = algorithm(name, model, num_domains, make_optimizer=make_optimizer, **hparams)
    run(made, batches((3,) * num_domains))
    assert torch.equal(weights(model), all_before) == (not made.params)
    assert_same_bits(model.get_parameter(parameter).detach(), before)


def assert_resumes_exactly(name, hparams, sizes):
    """Two steps, a saved state, a new object with other weights, two more steps: the same bits as four steps."""
    there = batches(sizes)
    uninterrupted = algorithm(name, mlp(), len(sizes), **hparams)
    whole = run(uninterrupted, there)
    first = algorithm(name, mlp(), len(sizes), **hparams)
    run(first, there[:2])
    saved = copy.deepcopy(first.state_dict())
    second = algorithm(name, mlp(seed=9), len(sizes), **hparams)
    second.load_state_dict(saved)
    assert_same_bits(run(second, there[2:], start=2), whole[2:])
    theirs = uninterrupted.networks.state_dict()
    for key, ours in second.networks.state_dict().items():
        assert_same_bits(ours, theirs[key])


def assert_reads_no_value(algorithm, batch):
    """`update` runs on the meta device, whose tensors have shapes but no values.

    There `item`, a branch on a tensor, a boolean mask, or a copy to NumPy raises. The check of the first perturbation,
    once per run, is taken as done. (`torch.autocast` knows no meta device: replace it first.)
    """
    algorithm.survival = Survival(1.0, 1.0)
    for step in range(2):
        algorithm.step = step
        metrics = algorithm.update(batch.to("meta"))
    assert all(value.shape == () for value in metrics.values())


def assert_finite(algorithm, batch):
    for step in range(3):
        algorithm.step = step
        metrics = algorithm.update(batch)
        assert all(value.isfinite() for value in metrics.values())
    assert weights(algorithm.model).isfinite().all()
