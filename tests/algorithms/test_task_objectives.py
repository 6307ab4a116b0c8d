"""Algorithms see K losses and do not know what they are of: domains and tasks are the same to them."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from algorithm_cases import CLASSES, algorithm, batches, mlp, weights
from properties import assert_close, assert_same_bits
from torch import nn

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.algorithms.solvers import solvers
from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared
from domainbed_sage.data.batch import TaskBatch
from domainbed_sage.models import ImageSpec, Model
from domainbed_sage.models.optimizers import adam

SIZES = (4, 4, 4)
HEADS = [["classifier.0.weight", "classifier.0.bias"], ["classifier.1.weight", "classifier.1.bias"]]


class Several(Model):
    """A trunk with BatchNorm and two heads."""

    def __init__(self, freeze_bn=False):
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
        heads = nn.ModuleList([nn.Linear(5, CLASSES), nn.Linear(5, 2)])
        super().__init__(trunk, heads, ImageSpec(0, (0, 0, 0), (1, 1, 1)), freeze_bn=freeze_bn)
        self.double()

    def forward(self, x):
        z = self.featurizer(x)
        return [head(z) for head in self.classifier.children()]


class Classes:
    loss = staticmethod(F.cross_entropy)


class Numbers:
    loss = staticmethod(F.mse_loss)


class RowsOf:
    """The loss of the rows of one domain, as a task."""

    def __init__(self, k):
        self.k = k

    def loss(self, logits, y):
        rows = slice(4 * self.k, 4 * self.k + 4)
        return F.cross_entropy(logits[rows], y[rows])


class Thrice(Model):
    """One network whose output is that of three tasks."""

    def forward(self, x):
        return [self.classifier(self.featurizer(x))] * 3


def with_tasks(name, model, tasks, heads, solver="LS", precision="fp64", solver_hparams=None, **options):
    hparams = solver_hparams or {}
    objectives = partial(TaskObjectives, tasks=tasks, heads=heads, solver=solver, solver_hparams=hparams)
    problem = Problem(model, partial(adam, lr=1e-2), len(tasks), precision, objectives=objectives)
    return algorithms[name](problem, **options)


def two_tasks(name="ERM", solver="LS", model=None, **options):
    return with_tasks(name, model or Several(), [Classes(), Numbers()], HEADS, solver, **options)


def task_batches(steps=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator, dtype=dtype)
    return [
        TaskBatch(draw(9, 6), (torch.randint(CLASSES, (9,), generator=generator), draw(9, 2))) for _ in range(steps)
    ]


def run(made, batches, start=0):
    trajectory = []
    for t, batch in enumerate(batches, start):
        torch.manual_seed(100 + t)
        made.step, made.batch = t, batch
        made.update(batch)
        trajectory.append(weights(made.model))
    return torch.stack(trajectory)


@pytest.mark.parametrize("name", ["ERM", "SAM", "SAGE", "GGA_L", "ASAM", "DISAM", "GroupDRO", "VREx", "F-MTL"])
def test_domains_as_tasks_give_the_same_update(name):
    hparams = {"rho": 1e-3, "gamma": 1e-2} if name == "SAGE" else {}
    as_domains = algorithm(name, mlp(), 3, make_optimizer=partial(adam, lr=1e-2), **hparams)
    network = mlp()
    thrice = Thrice(network.featurizer, network.classifier, network.image).double()
    as_tasks = with_tasks(
        name, thrice, [RowsOf(k) for k in range(3)], [[]] * 3, solver_hparams={"mean": True}, **hparams
    )
    domains = batches(SIZES)
    tasks = [TaskBatch(batch.x, (batch.y,) * 3) for batch in domains]
    assert_close(run(as_tasks, tasks), run(as_domains, domains), 1e-12)


@pytest.mark.parametrize("solver", list(solvers))
@pytest.mark.parametrize("name", ["ERM", "SAGE", "SAMO", "SAGE_SAMO", "F-MTL"])
def test_a_restart_changes_no_bit(name, solver):
    data = task_batches(6)
    whole = run(two_tasks(name, solver), data)
    first = two_tasks(name, solver)
    run(first, data[:3])
    second = two_tasks(name, solver)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert_same_bits(run(second, data[3:], start=3), whole[3:])


def test_samo_that_accumulates_remembers_the_last_gradient():
    data = task_batches(4)
    whole, forgetful = (run(two_tasks("SAMO", accumulate=kept), data) for kept in (True, False))
    assert not torch.equal(whole, forgetful)
    first = two_tasks("SAMO", accumulate=True)
    run(first, data[:2])
    second = two_tasks("SAMO", accumulate=True)
    own = [t.data_ptr() for t in second.previous.gradient]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [t.data_ptr() for t in second.previous.gradient] == own  # on its device: checkpoints are read on the CPU
    assert_same_bits(run(second, data[2:], start=2), whole[2:])


@pytest.mark.parametrize(("share", "same"), [(0.0, True), (1.0, False)])
def test_samo_beta_is_the_share_of_the_estimate(share, same):
    """Without it nothing is drawn by chance."""
    one, other = (run(two_tasks("SAMO", samo_beta=share), task_batches(1), start=seed) for seed in (0, 1))
    assert torch.equal(one, other) == same


@pytest.mark.parametrize("name", ["ERM", "SAM", "SAGE", "SAMO", "SAGE_SAMO", "F-MTL"])
@pytest.mark.parametrize("solver", ["LS", "FAMO", "FairGrad"])
def test_only_one_clean_pass_moves_batch_statistics(name, solver):
    """FAMO's second look at the minibatch, and all perturbed passes, leave them alone."""
    made, (batch,) = two_tasks(name, solver), task_batches(1)
    clean = two_tasks("ERM")
    with torch.no_grad():
        clean.objectives.losses(batch)
    run(made, [batch])
    for name, there in clean.model.named_buffers():
        assert torch.equal(dict(made.model.named_buffers())[name], there)


@pytest.mark.parametrize("name", ["ERM", "SAM", "SAGE", "SAMO", "SAGE_SAMO", "F-MTL"])
def test_a_solver_that_watches_sees_the_losses_after_the_step(name):
    made, (batch,) = two_tasks(name, "FAMO"), task_batches(1)
    seen = []
    stepped = made.objectives.solver.stepped
    made.objectives.solver.stepped = lambda losses: (seen.append(losses), stepped(losses))
    run(made, [batch])
    with torch.no_grad(), made.model.frozen_statistics():
        assert_close(seen[0], made.objectives.losses(batch), 1e-12)


def test_the_guard_takes_no_step_of_the_solver():
    """It measures the gradient of the mean loss."""
    made = two_tasks("SAGE", "MoCo", Several().float(), precision="bf16x3", rho=1e-2, scale_by_weight=False)
    (batch,) = task_batches(1, torch.float32)
    run(made, [batch])
    assert made.survival is not None
    assert made.objectives.state_dict()["tracked"]["steps"] == 1


@pytest.mark.parametrize(("solver", "of_head"), [("MGDA", "weighted"), ("FairGrad", "plain"), ("LS", "weighted")])
def test_heads_get_what_the_solvers_authors_give_them(solver, of_head):
    made, (batch,) = two_tasks("ERM", solver), task_batches(1)
    losses, g = made.objectives.gradients(batch)
    shared = [tuple(t.clone() for t, is_shared in zip(v, made.objectives.shared, strict=True) if is_shared) for v in g]
    heads = [[t.clone() for t, mine in zip(v, made.objectives.heads[k], strict=True) if mine] for k, v in enumerate(g)]
    w = two_tasks("ERM", solver).objectives.solver.combine(losses, shared).weights
    found = made.objectives.aggregate(batch, losses, g)
    assert made.objectives.batch is batch  # which solvers that watch look at again
    for k, head in enumerate(heads):
        ours = [t for t, mine in zip(found, made.objectives.heads[k], strict=True) if mine]
        factor = (2 if solver == "MGDA" else 1) * w[k] if of_head == "weighted" else 1
        for t, expected in zip(ours, head, strict=True):
            assert_close(t, factor * expected, 1e-12)


@pytest.mark.parametrize("frozen", [False, True])
def test_names_of_heads_that_are_none(frozen):
    """A frozen parameter is none either."""
    model, name = Several(), "classifier.1.bias" if frozen else "classifier.2.bias"
    model.classifier[1].bias.requires_grad_(not frozen)
    with pytest.raises(UserError, match=rf"no trainable parameter {name}, named as a head's"):
        with_tasks("ERM", model, [Classes(), Numbers()], [["classifier.0.weight"], [name]])


@pytest.mark.parametrize("solver", ["LS", "FairGrad"])
@pytest.mark.parametrize("name", ["ERM", "SAGE", "SAMO", "SAGE_SAMO", "F-MTL"])
def test_the_loss_of_a_step_is_the_mean_before_it(name, solver):
    """Without its graph; F-MTL also has the one where the gradients are taken."""
    made, (batch,) = two_tasks(name, solver), task_batches(1)
    with torch.no_grad(), made.model.frozen_statistics():
        before = made.objectives.losses(batch).mean()
    metrics = made.update(batch)
    assert_close(metrics["loss"], before, 1e-12)
    assert not metrics["loss"].requires_grad
    assert metrics.get("loss_perturbed", before + 1) > before


OPTIONS: dict[str, dict[str, object]] = {
    "SAMO": {"samo_rho": 0.1, "samo_beta": 0.1, "zo_eps": 0.5, "layerwise": False, "samo_max_norm": 0.01},
    "SAGE_SAMO": {"rho": 1e-2, "gamma": 1e-2, "ns": "cubic", "ns_steps": 9, "scale_by_weight": False}
    | {"samo_beta": 0.1, "zo_eps": 0.5, "layerwise": False, "samo_max_norm": 0.01},
    "F-MTL": {"fmtl_rho": 0.5, "adaptive": True, "joint_norm": True, "aggregate": "direct", "unit_norm": True},
}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in OPTIONS for option in OPTIONS[name]])
def test_every_hyperparameter_matters(name, option):
    usual, other = (run(two_tasks(name, "MGDA", **h), task_batches(1)) for h in ({}, {option: OPTIONS[name][option]}))
    assert not torch.equal(usual, other)


def test_hyperparameters_of_tasks_are_those_of_the_authors():
    found = {name: declared(algorithms[name]) for name in OPTIONS}
    defaults = {name: {option: h.default for option, h in of.items()} for name, of in found.items()}
    common = {"samo_beta": 0.5, "zo_eps": 0.01, "layerwise": True, "samo_max_norm": 1.0}
    sage = {"rho": 1e-4, "gamma": 1e-5, "ns": "quintic", "ns_steps": 5, "scale_by_weight": True}
    assert defaults["SAMO"] == {"samo_rho": 0.001, "accumulate": False} | common
    assert defaults["SAGE_SAMO"] == sage | common
    fmtl = {"fmtl_rho": 0.05, "adaptive": False, "joint_norm": False, "aggregate": "separate", "unit_norm": False}
    assert defaults["F-MTL"] == fmtl
    schedule, over = {"lr_decay": 0.5, "lr_decay_epochs": 100}, {"agreement_over": "all", "perturb": "all"}
    objectives = {option: h.default for option, h in declared(TaskObjectives).items()}
    assert objectives == {"solver": "LS", "solver_hparams": {}} | over | schedule


def test_gradients_and_estimates_that_are_zero_stay_so():
    for adaptive in (False, True):
        made = two_tasks("F-MTL", adaptive=adaptive, unit_norm=True)
        zeros = [tuple(torch.zeros_like(p) for p in made.params) for _ in range(2)]
        assert all((t == 0).all() for t in (*made.ascent(zeros[0], 0), *made._units(zeros)[0]))
    samo = two_tasks("SAMO")
    samo.objectives.loss_of = lambda batch, k: samo.params[0].sum() * 0
    found = samo.estimate(None, samo.params, 0)
    assert all((t == 0).all() and not t.requires_grad for t in found)


def test_a_solver_that_does_not_watch_costs_no_pass():
    made, watching = two_tasks("ERM", "LS"), two_tasks("ERM", "FAMO")
    run(made, task_batches(1))
    made.objectives.losses = None
    made.objectives.stepped()
    watching.objectives.stepped()  # before the first minibatch there is nothing to see


def test_predictions_are_made_in_the_precision_of_the_run_and_returned_in_that_of_the_images():
    made, (batch,) = two_tasks("ERM", model=Several().float(), precision="bf16"), task_batches(1, torch.float32)
    for p in made.objectives.predict(batch.x):
        assert p.dtype == torch.float32
        assert torch.equal(p, p.bfloat16().float())


def test_a_target_too_many_is_not_dropped():
    made, (batch,) = two_tasks(), task_batches(1)
    with pytest.raises(ValueError, match="longer"):
        made.objectives.losses(TaskBatch(batch.x, (*batch.targets, batch.targets[0])))


def test_a_network_of_heads_alone():
    every = [name for name, _ in Several().named_parameters()]
    with pytest.raises(UserError, match=r"at least one shared parameter. Found 0"):
        with_tasks("ERM", Several(), [Classes(), Numbers()], [every, []])


def test_a_batch_needs_a_target_a_row():
    x = torch.zeros(3, 2)
    for targets in ((), (torch.zeros(3), torch.zeros(2))):
        with pytest.raises(ValueError, match="Every task should have a target for each"):
            TaskBatch(x, targets)
    with pytest.raises(ValueError, match="Found 0 inputs"):
        TaskBatch(x[:0], (x[:0],))
