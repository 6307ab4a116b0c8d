"""The cost model against PyTorch's own counts: FLOPs of every algorithm's step, and memory of a pass."""

import copy
import gc
from itertools import accumulate

import pytest
import torch
from algorithm_cases import SETTINGS, one_thread
from helpers import small_config
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry import polar
from domainbed_sage.geometry.polar import polar_factor, polar_flops
from domainbed_sage.models import models
from domainbed_sage.models.optimizers import adam
from domainbed_sage.sweeps.cost import LiveBytes, cost_of, count_pass, step_cost
from domainbed_sage.sweeps.estimate import StepTime, plan

CLASSES = ["a", "b", "c"]


@pytest.fixture(autouse=True, scope="module")
def in_one_thread():
    with one_thread():
        yield


BUILDS = {
    "small_cnn": {},
    "tf_efficientnet_lite0": {"pretrained": False, "image_size": 64},
    "timm": {"backbone": "vit_tiny_patch16_224", "pretrained": False, "image_size": 128},
}


# PyTorch's counter knows the fused attention of CUDA, not that of CPU.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v)
    ),
}


def flops(function):
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        function()
    return counter.get_total_flops()


def made_batch(model, sizes):
    x = torch.randn(sum(sizes), 3, model.image.size, model.image.size)
    return DomainBatch(x, torch.arange(sum(sizes)) % len(CLASSES), sizes)


@pytest.fixture(scope="module", params=list(BUILDS))
def network(request):
    torch.manual_seed(0)
    return models[request.param].build(CLASSES, **BUILDS[request.param])


@pytest.fixture(scope="module")
def counted(network):
    return count_pass(copy.deepcopy(network).to("meta"))


@pytest.mark.parametrize("sizes", [(4,), (2, 3, 1), (1, 2, 1, 2, 1)], ids=str)
@pytest.mark.parametrize(("name", "hparams"), SETTINGS)
def test_flops_of_a_step(name, hparams, sizes):
    """In GGA's window too; the SVD is beside the count, there and here."""
    network = models["small_cnn"].build(CLASSES)
    assert_flops(network, count_pass(copy.deepcopy(network).to("meta")), name, hparams, sizes)


def test_flops_of_a_sage_step_of_every_kind_of_network(network, counted):
    assert_flops(network, counted, "SAGE", {}, (2, 3, 1))


def assert_flops(network, counted, name, hparams, sizes):
    hparams = validate(declared(algorithms[name]), hparams | ({"start": 0, "trials": 2} if "trials" in hparams else {}))
    model = copy.deepcopy(network)  # large radii leave no network to the next case
    made = algorithms[name](Problem(model, lambda params: adam(params, lr=1e-6), len(sizes)), **hparams)
    seen = flops(lambda: made.update(made_batch(network, sizes)))
    modelled = cost_of(algorithms[name], hparams, counted, sizes, made.passes(1, hparams), 2)
    assert modelled.flops == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize(
    "shape", [(24, 24), (20, 45), (45, 20), (8, 3, 4, 2), (600, 600), (515, 1100), (7,), ()], ids=str
)
@pytest.mark.parametrize("method", ["quintic", "cubic", "polar_express"])
@pytest.mark.parametrize(("steps", "dtype"), [(0, "full"), (1, "full"), (5, "full"), (2, "bf16"), (5, "bf16")])
def test_flops_of_a_polar_factor(shape, method, steps, dtype):
    G = torch.randn(shape)
    seen = flops(lambda: polar_factor(G.flatten(1), method, steps, dtype)) if len(shape) > 1 else 0
    assert polar_flops(G.shape, method, steps, dtype) == seen


def test_blocks_save_three_eighths_of_a_symmetric_product(monkeypatch):
    whole, square = torch.Size((640, 640)), 2 * 640**3
    assert polar_flops(whole) == 5 * (square + 2 * square * 5 // 8)
    monkeypatch.setattr(polar, "BLOCKED_FROM", 1000)
    assert polar_flops(whole) == 15 * square


def allocated(function):
    """The most bytes that PyTorch's allocator had given out, beyond those from before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    events = sorted(
        (e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    )
    return max(accumulate(e.nbytes() for e in events))


@pytest.mark.parametrize("rows", [12, 24])
def test_memory_of_a_pass(network, counted, rows):
    made = algorithms["ERM"](Problem(network, lambda params: adam(params, lr=1e-6), 1))
    batch = made_batch(network, (rows,))
    made.gradient(batch)
    assert counted.peak(rows) == pytest.approx(allocated(lambda: made.gradient(batch)), rel=0.1)


def test_live_bytes_are_of_storages_while_they_live():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a.view(10, 100)[3:]  # the same memory
        assert (live.now, live.peak) == (4000, 4000)
        c = a + 1
        del a
        assert (live.now, live.peak) == (8000, 8000)  # b holds it
        del b
        assert live.now == 4000
        c.mul_(2)
        assert (live.now, live.peak) == (4000, 8000)


def test_sage_holds_one_gradient_per_domain_at_most():
    """At a fixed number of rows per domain, K domains in one pass need more memory than K gradients."""
    network = models["timm"].build(CLASSES, **BUILDS["timm"]).to("meta")
    counted, cost = count_pass(network), {}
    for K in (2, 3, 5):
        for name in ("SAM", "SAGE", "GGA_L", "ERM"):
            sizes = [64] * K
            cost[name, K] = cost_of(algorithms[name], validate(declared(algorithms[name]), {}), counted, sizes, 1, 2)
    for K in (2, 3, 5):
        assert cost["SAGE", K].peak_bytes == cost["SAM", K].peak_bytes
        assert cost["GGA_L", K].peak_bytes < cost["ERM", K].peak_bytes


def run_of(algorithm, **hparams):
    return small_config(algorithm, hparams=hparams)


def test_plan_adds_up_and_gives_sage_its_polar_factors():
    runs = [run_of("SAM"), run_of("SAGE"), run_of("SAGE", ns="cubic"), run_of("SAGE", orthogonalize=False)]
    table = plan(runs, StepTime(seconds=3.6, rows=36))
    sam, sage = (table.loc[("EmojiStyles", name)] for name in ("SAM", "SAGE"))
    assert list(table.loc[("all", "all")][["runs", "flops"]]) == [4, sam["flops"] + sage["flops"]]
    assert table.loc[("all", "all"), "peak_bytes"] == max(sam["peak_bytes"], sage["peak_bytes"])
    costs = [step_cost(run) for run in runs]
    assert costs[0].flops == costs[3].flops < costs[2].flops < costs[1].flops
    plain = sam["images_passed"] + sam["images_evaluated"] / 3
    assert sam["hours"] == pytest.approx(plain * 0.1 / 3600)
    extra = runs[0].steps * (costs[1].flops + costs[2].flops - 2 * costs[0].flops) / costs[0].pass_flops
    assert sage["hours"] == pytest.approx((3 * plain + extra) * 0.1 / 3600)
