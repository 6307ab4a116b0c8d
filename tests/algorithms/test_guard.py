"""The guard measures what a perturbation changes in the gradient, once, and changes nothing of the run."""

import copy

import pytest
import torch
from algorithm_cases import algorithm, batch_norm_mlp, batches, mlp, run
from properties import assert_same_bits
from torch import nn

from domainbed_sage.algorithms import guard
from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.perturb import Survival, perturbed
from domainbed_sage.models.base import Model


def made(precision, model=None, rho=1e-3, name="SAGE", **hparams):
    return algorithm(name, (model or mlp()).float(), precision=precision, rho=rho, **hparams)


def minibatches(steps=3):
    return [batch.map(torch.Tensor.float) for batch in batches((3, 3, 3), steps)]


def started(ours, batch):
    """With its minibatch, as the training loop gives it."""
    ours.batch = batch
    return ours


def flat(vector):
    return torch.cat([t.double().flatten() for t in vector])


@pytest.mark.parametrize("precision", ["tf32", "bf16", "bf16x3"])
def test_cosine_and_size_are_those_of_the_change_of_the_gradient(precision, monkeypatch):
    """Against the definition, on a copy, for a perturbation whose change is partly lost."""
    monkeypatch.setattr(guard, "REQUIRED_COSINE", -1.0)
    monkeypatch.setattr(guard, "SMALLEST_SIZE", 0.0)
    monkeypatch.setattr(guard, "LARGEST_SIZE", float("inf"))
    (batch,), epsilon = minibatches(1), [1e-3 * torch.randn_like(p) for p in mlp().float().parameters()]
    changes = []
    for arithmetic in (precision, "fp32"):
        other = made(arithmetic)
        before = other.gradient(batch)[1]
        with perturbed(other.params, tuple(e.clone() for e in epsilon)):
            changes.append(flat(other.gradient(batch)[1]) - flat(before))
    ours = started(made(precision), batch)
    with ours.perturbed(tuple(e.clone() for e in epsilon)):
        pass
    actual, true = changes
    assert ours.survival.cosine == pytest.approx(float(torch.cosine_similarity(actual, true, dim=0)))
    assert ours.survival.size == pytest.approx(float(actual.norm() / true.norm()))
    assert ours.survival.cosine != 1


def test_bf16x3_keeps_what_bf16_loses():
    (batch,) = minibatches(1)
    with pytest.raises(UserError) as caught:
        started(made("bf16"), batch).update(batch)
    message = str(caught.value)
    assert message.startswith("SAGE's perturbation does not survive bf16 arithmetic.")
    assert "Required are a cosine of at least 0.99 and a size from 0.9 to 1.1" in message
    assert "Use --precision fp32 or bf16x3, or a larger radius." in message
    ours = started(made("bf16x3"), batch)
    ours.update(batch)
    assert ours.survival.cosine > 0.999


@pytest.mark.parametrize("size", [0.5, 0.89, 1.11, 2.0, float("nan")])
def test_a_change_of_another_size_is_refused(size, monkeypatch):
    (batch,) = minibatches(1)
    monkeypatch.setattr(guard.Survival, "of", lambda *_: Survival(0.995, size))
    with pytest.raises(UserError, match=r"cosine is 0\.995 and the relative size"):
        started(made("bf16x3"), batch).update(batch)


@pytest.mark.parametrize("cosine", [-1.0, 0.98, float("nan")])
def test_a_change_in_another_direction_is_refused(cosine, monkeypatch):
    (batch,) = minibatches(1)
    ours = started(made("bf16x3"), batch)
    before = copy.deepcopy(ours.model.state_dict())
    monkeypatch.setattr(guard, "check_held", lambda *_: Survival(1.0, 1.0))
    monkeypatch.setattr(guard.Survival, "of", lambda *_: Survival(cosine, 1.0))
    with pytest.raises(UserError, match="does not survive bf16x3"):
        ours.update(batch)
    assert all(torch.equal(t, before[name]) for name, t in ours.model.state_dict().items())
    assert ours.survival is None


def passes(ours, monkeypatch):
    """The precisions of the gradients that are asked for."""
    found, gradient = [], ours.objectives.gradient

    def counted(batch):
        found.append(ours.precision)
        return gradient(batch)

    for name in ("gradient", "mean_gradient"):
        monkeypatch.setattr(ours.objectives, name, counted)
    return found


@pytest.mark.parametrize(
    ("precision", "first"),
    [("fp64", []), ("fp32", []), ("bf16x3", ["bf16x3", "fp32"] * 2)],
)
def test_four_passes_once_and_none_in_exact_arithmetic(precision, first, monkeypatch):
    ours, there = made(precision), minibatches()
    if precision == "fp64":
        ours.model.double()
        there = [batch.map(torch.Tensor.double) for batch in there]
    asked = passes(ours, monkeypatch)
    run(ours, there)
    assert asked == [*first, *[precision] * len(there)]  # one of SAGE's own in a step: its first are the domains'
    assert bool(guard.measured(ours)) == bool(first)


def test_records_say_what_was_found():
    ours, (batch,) = made("bf16x3"), minibatches(1)
    assert guard.measured(ours) == {}
    started(ours, batch).update(batch)
    cosine, size = ours.survival
    assert guard.measured(ours) == {"perturbation_cosine": cosine, "perturbation_size": size}


def test_no_perturbation_needs_no_pass(monkeypatch):
    ours, (batch,) = made("bf16", rho=0.0), minibatches(1)
    asked = passes(ours, monkeypatch)
    started(ours, batch).update(batch)
    assert asked == ["bf16"]
    assert ours.survival == (1, 1)


def test_the_minibatch_has_to_be_known():
    (batch,) = minibatches(1)
    with pytest.raises(UserError, match="Set the algorithm's `batch` before `update`"):
        made("bf16x3").update(batch)


@pytest.mark.parametrize("freeze_bn", [True, False])
def test_nothing_of_the_run_changes(freeze_bn):
    """Random numbers, BatchNorm statistics and weights after three steps are those of a run that is not measured."""

    def network():
        model = batch_norm_mlp(freeze_bn)
        return Model(
            nn.Sequential(model.featurizer, nn.Dropout(0.4)), model.classifier, model.image, freeze_bn=freeze_bn
        )

    unmeasured, ours = made("bf16x3", network()), made("bf16x3", network())
    unmeasured.survival = Survival(1.0, 1.0)
    assert_same_bits(run(ours, minibatches()), run(unmeasured, minibatches()))
    assert ours.survival != (1, 1)
    for a, b in zip(ours.model.buffers(), unmeasured.model.buffers(), strict=True):
        assert_same_bits(a, b)


def test_masks_of_dropout_are_the_same_in_all_passes():
    """Other ones would change the gradient far more than the perturbation does."""
    model = mlp()
    model = Model(nn.Sequential(model.featurizer, nn.Dropout(0.5)), model.classifier, model.image)
    ours, (batch,) = made("bf16x3", model), minibatches(1)
    started(ours, batch).update(batch)
    assert ours.survival.cosine > 0.999


def test_a_pass_without_gradients_is_measured_all_the_same():
    ours, (batch,) = made("bf16x3"), minibatches(1)
    started(ours, batch)
    with torch.no_grad(), ours.perturbed(tuple(torch.full_like(p, 1e-3) for p in ours.params)):
        assert not torch.is_grad_enabled()
    assert 0.999 < ours.survival.cosine < 1


@pytest.mark.parametrize("name", ["SAM", "GAM", "SAGM", "DISAM", "SWAD", "GGA"])
def test_every_method_that_perturbs_runs_in_bf16x3(name):
    hparams = {
        "SWAD": {"around": "SAM", "around_hparams": {"rho": 0.05}},
        "GGA": {"radius": 0.02, "start": 0, "end": 1, "trials": 2},
        "GAM": {"grad_rho": 0.02, "grad_norm_rho": 0.2},
    }
    ours = algorithm(name, mlp().float(), precision="bf16x3", **hparams.get(name, {"rho": 0.05}))
    run(ours, minibatches(2))
    assert 0.99 < ours.survival.cosine < 1


def test_an_old_checkpoint_is_measured_anew():
    """Earlier versions stored the cosine of the weights alone."""
    ours, (batch,) = made("bf16x3"), minibatches(1)
    started(ours, batch).update(batch)
    state = ours.state_dict()
    found = ours.survival
    del state["perturbation_size"]
    ours.load_state_dict(state)
    assert ours.survival is None
    ours.load_state_dict(state | {"perturbation_size": 1.25})
    assert ours.survival == (found.cosine, 1.25)


@pytest.mark.parametrize("precision", ["bf16x3", "tf32"])
def test_the_reference_is_fp32_with_tf32_off(precision, monkeypatch):
    seen, real = [], guard.tf32_allowed
    monkeypatch.setattr(guard, "tf32_allowed", lambda allowed: seen.append(allowed) or real(allowed))
    ours, (batch,) = made(precision), minibatches(1)
    started(ours, batch).update(batch)
    assert seen == [precision == "tf32", False] * 2
