"""Networks with several outputs: activations, which parameters are shared, and BatchNorm statistics."""

from functools import partial

import pytest
import torch
from torch import nn

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.batch import TaskBatch
from domainbed_sage.models.mtan_segnet import mtan_segnet
from domainbed_sage.models.multitask import ACTIVATIONS, MultiTaskModel
from domainbed_sage.models.optimizers import adam
from domainbed_sage.models.shared_trunk import resnet_heads
from domainbed_sage.tasks import Attribute, Classification, Depth, Normals, Segmentation, Task

SCENE = (Segmentation(4), Depth(), Normals())
DIGITS = (Classification("left", 10), Classification("right", 10))


class Tangled(MultiTaskModel):
    """Four layers whose names say nothing: a of all, b of two, c and d of one each, and e of none; dropout."""

    def __init__(self, outputs):
        super().__init__(outputs, (1, 2, 2))
        for name in "abcde":
            setattr(self, name, nn.Conv2d(1, 1, 1, bias=False))
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm2d(1, affine=False)

    def raw(self, x):
        x = self.norm(self.drop(self.a(x)))
        x1 = self.b(x)
        return [self.c(x1), self.d(x1), x][: len(self.task_names)]


def assert_same_bits(ours, theirs):
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def plain(*names):
    return tuple(Depth(name) for name in names)


def dense(model, seed=0):
    """A pass in training mode over two images."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return model(x)


def statistics(model):
    return [b.clone() for m in model.batch_norms() for b in (m.running_mean, m.running_var, m.num_batches_tracked)]


def test_masks_of_tangled_tasks():
    model = Tangled(plain("one", "two", "three"))
    assert model.shared == (True, False, False, False, False)
    assert [model.private(k) for k in range(3)] == [
        (False, False, True, False, False),
        (False, False, False, True, False),
        (False,) * 5,
    ]
    assert [row[1] for row in model.reached] == [True, True, False]


def test_masks_are_of_what_is_trained():
    model = Tangled(plain("one", "two"))
    model.a.requires_grad_(False)
    assert model.shared == (True, False, False, False)
    assert len(model.code_shared) == 4


def test_one_task_shares_everything_with_itself():
    model = Tangled(plain("one"))
    assert model.shared == (True, True, True, False, False)
    assert not any(model.private(0))


def test_nothing_is_shared():
    model = Tangled(plain("one", "two", "three"))
    model.a.requires_grad_(False)
    with pytest.raises(UserError, match=r"No parameter is shared by all 3 tasks \(one, two, three\)"):
        _ = model.shared


@pytest.mark.parametrize("mode", [True, False])
def test_finding_masks_changes_nothing(mode):
    """Neither modes nor statistics, random numbers or gradients, and it works where no gradient is recorded."""
    torch.manual_seed(0)
    model = Tangled(plain("one", "two")).train(mode)
    model.drop.eval()
    before, bits = statistics(model), torch.get_rng_state()
    with torch.no_grad():
        assert any(model.shared)
    assert_same_bits(before, statistics(model))
    assert torch.equal(torch.get_rng_state(), bits)
    assert [m.training for m in (model, model.norm, model.drop)] == [mode, mode, False]
    assert all(p.grad is None for p in model.parameters())


def test_modes_are_kept_where_no_pass_is_possible():
    model = Tangled(plain("one"))
    model.raw = lambda x: pytest.fail("no pass")
    with pytest.raises(pytest.fail.Exception):
        _ = model.shared
    assert model.training


def test_activations():
    """Log-probabilities, plain numbers and unit vectors; a zero vector is no NaN."""
    segmentation, depth, normals = dense(mtan_segnet(SCENE, width=2))
    assert [p.shape[1] for p in (segmentation, depth, normals)] == [4, 1, 3]
    torch.testing.assert_close(segmentation.exp().sum(1), torch.ones(2, 32, 32))
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(2, 32, 32))
    assert (depth < 0).any()
    tiny = 1e-6 * torch.ones(1, 3, 1, 1)
    torch.testing.assert_close(ACTIVATIONS["unit"](tiny).norm(dim=1), torch.ones(1, 1, 1))
    zero = torch.zeros(1, 3, 1, 1, requires_grad=True)
    (g,) = torch.autograd.grad(ACTIVATIONS["unit"](zero).sum(), zero)
    assert g.isfinite().all()


def test_activations_of_tasks_are_known():
    def kinds(task):
        return [task, *(kind for sub in task.__subclasses__() for kind in kinds(sub))]

    assert {kind.activation for kind in kinds(Task)} == set(ACTIVATIONS)


def test_frozen_statistics_keep_the_outputs():
    model = mtan_segnet(SCENE, width=2)
    assert model.mixes_samples
    before = statistics(model)
    with model.frozen_statistics():
        inside = dense(model)
    assert_same_bits(before, statistics(model))
    assert_same_bits(inside, dense(model))
    assert not all(torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True))
    assert not model.eval().mixes_samples


def test_heads_in_both_readings():
    """By names only the last layers are a task's own; by what it reaches, its attention modules as well."""
    model = mtan_segnet(SCENE, width=1)
    for k, (last, own) in enumerate(zip(model.heads(model.code_shared), model.heads(model.shared), strict=True)):
        names = [name for name, _ in model.named_parameters()]
        assert list(last) == [name for name in names if name.startswith(f"pred_task{k + 1}.")]
        begins = (f"encoder_att.{k}.", f"decoder_att.{k}.", f"pred_task{k + 1}.")
        assert list(own) == [name for name in names if name.startswith(begins)]
        assert own == tuple(name for name, has in zip(names, model.private(k), strict=True) if has)


def test_an_algorithm_takes_heads_as_they_are():
    """A SAGE step of MTAN on two images, with a solver of the shared gradients."""
    model = mtan_segnet(SCENE, width=1)
    objectives = partial(TaskObjectives, tasks=SCENE, heads=model.heads(model.shared), solver="FairGrad")
    targets = (torch.zeros(2, 32, 32), torch.ones(2, 1, 32, 32), -torch.ones(2, 3, 32, 32))
    batch = TaskBatch(torch.rand(2, 3, 32, 32), targets)
    before = [p.clone() for p in model.parameters()]
    algorithm = algorithms["SAGE"](Problem(model, partial(adam, lr=1e-3), 3, objectives=objectives))
    assert algorithm.update(batch)["loss"].isfinite()
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True) if p.ndim > 1)


@pytest.mark.parametrize(
    ("tasks", "hparams", "trunk"),
    [
        (DIGITS, {"channels": 1}, 11_170_240),
        (tuple(Attribute(f"a{k}") for k in range(40)), {"backbone": "resnet50"}, 23_508_032),
    ],
)
def test_residual_networks(tasks, hparams, trunk):
    """The trunk without its classifier is shared, and a head is its task's own; names say the same."""
    model = resnet_heads(tasks, **hparams)
    assert all((norm.weight == 1).all() for norm in model.batch_norms())
    sizes = [p.numel() for p in model.parameters()]
    assert sum(size for size, has in zip(sizes, model.shared, strict=True) if has) == trunk
    assert model.shared == model.code_shared
    for k, head in enumerate(model.pred):
        own = [p for p, has in zip(model.parameters(), model.private(k), strict=True) if has]
        assert [id(p) for p in own] == [id(p) for p in head.parameters()]
    with torch.no_grad():
        found = model.eval()(torch.randn(2, hparams.get("channels", 3), 36, 36))
    assert [tuple(y.shape) for y in found] == [(2, task.channels) for task in tasks]


def test_an_output_too_many_is_not_dropped():
    model = Tangled(plain("one", "two"))
    model.raw = lambda x: [x, x, x]
    with pytest.raises(ValueError, match="longer"):
        model(torch.zeros(1, 1, 2, 2))


def test_what_is_no_network():
    with pytest.raises(UserError, match=r"at least one task\. Found none"):
        mtan_segnet((), width=1)
    strange = type("Strange", (Depth,), {"activation": "tanh"})("far")
    with pytest.raises(UserError, match=r"'far' asks for the activation 'tanh'\. Known: log_softmax, none, unit"):
        mtan_segnet((strange,), width=1)
