"""The cost of a step, counted on fake tensors, against PyTorch's own counts of a real step on real ones."""

import gc
from functools import partial
from itertools import accumulate

import pytest
import torch
from algorithm_cases import SETTINGS
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from domainbed_sage.algorithms import Algorithm, Problem, algorithms, register
from domainbed_sage.config import make_config
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.polar import polar_factor
from domainbed_sage.models import models
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.sweeps import cases
from domainbed_sage.sweeps.cost import step_cost
from domainbed_sage.sweeps.estimate import StepTime, plan
from domainbed_sage.sweeps.tally import Tally

CLASSES = [f"object {i}" for i in range(10)]  # as many as EmojiStyles has
BUILDS = {
    "small_cnn": {},
    "tf_efficientnet_lite0": {"pretrained": False, "image_size": 64},
    "timm": {"backbone": "vit_tiny_patch16_224", "pretrained": False, "image_size": 64},
}
CPU_ATTENTION = {  # PyTorch's counter knows the fused attention of CUDA, not that of CPU
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v)
    ),
}

pytestmark = pytest.mark.usefixtures("forget_plugins")


pytestmark = pytest.mark.usefixtures("in_one_thread")


@pytest.fixture(autouse=True)
def heads_from_text(monkeypatch):
    """For the methods that need one, every head passes for one made from text features."""
    network = cases._network
    monkeypatch.setattr(cases, "_network", lambda *case: with_class_features(network(*case)))


def with_class_features(network):
    network.class_features = True
    return network


def run_of(algorithm, model="small_cnn", *, steps=1, optimizer="adam", **hparams):
    """A run of `steps` steps; GGA searches at the first of them, and no other method's steps differ."""
    search = {"start": 0, "end": 1, "trials": 2, "radius": 1e-3} if algorithm == "GGA" else {}
    common = {"batch_size": 4, "lr": 1e-6, **({"width": 8} if model == "small_cnn" else {})}
    return make_config(
        dataset="EmojiStyles",
        algorithm=algorithm,
        test_envs=[0],
        model=model,
        optimizer=optimizer,
        steps=steps,
        checkpoint_freq=1,
        hparams=common | hparams | search | BUILDS[model],
    )


def real(run, step=0):
    """The algorithm of the run on a real network, with its optimizer's state, and a minibatch."""
    torch.manual_seed(0)
    build, optimizer, cls = models[run.model].build, optimizers[run.optimizer], algorithms[run.algorithm]
    network = with_class_features(build(CLASSES, **run.of(build)))
    K, n = len(run.source_envs), run.hparams["batch_size"]
    x = torch.randn(K * n, 3, network.image.size, network.image.size)
    batch = DomainBatch(x, torch.arange(K * n) % len(CLASSES), (n,) * K)
    made = cls(Problem(network, partial(optimizer, **run.of(optimizer)), K), **run.of(cls))
    made.step = step
    made.update(batch)
    return made, batch


def flops(function):
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        function()
    return counter.get_total_flops()


def flops_of_real_step(run, step=0):
    made, batch = real(run, step)
    return flops(lambda: made.update(batch))


# FLOPs


@pytest.mark.parametrize(("name", "hparams"), SETTINGS)
def test_flops_of_a_step(name, hparams, caplog):
    """In GGA's window; an SVD is in neither count."""
    run = run_of(name, **hparams)
    assert step_cost(run).flops == pytest.approx(flops_of_real_step(run), rel=0.05)
    assert "does not run without data" not in caplog.text


@pytest.mark.parametrize("model", [name for name in BUILDS if name != "small_cnn"])
@pytest.mark.parametrize("name", ["ERM", "SAGE", "GGA_L"])
def test_flops_of_every_kind_of_network(name, model):
    run = run_of(name, model, batch_size=2)
    assert step_cost(run).flops == pytest.approx(flops_of_real_step(run), rel=0.05)


def test_steps_that_differ_are_averaged():
    run = run_of("GGA", steps=4)
    searching, plain = flops_of_real_step(run), flops_of_real_step(run, step=2)
    assert searching > 3 * plain
    assert step_cost(run).flops == pytest.approx((2 * searching + 2 * plain) / 4, rel=0.05)  # at steps 0 and 1


@pytest.mark.parametrize("name", ["DANN", "CDANN"])
def test_steps_of_the_discriminator_are_counted_apart(name):
    """It takes three of four steps, and makes no pass back through the network."""
    run = run_of(name, steps=9, d_steps_per_g_step=3)
    discriminator, network = (flops_of_real_step(run, step) for step in (1, 2))
    assert [flops_of_real_step(run, step) for step in (0, 3, 6)] == [discriminator, discriminator, network]
    assert network > 2 * discriminator
    assert step_cost(run).flops == pytest.approx((2 * network + 7 * discriminator) / 9, rel=0.05)


def test_a_method_around_another_one_knows_its_kinds_of_steps():
    around = {"around": "DANN", "around_hparams": {"d_steps_per_g_step": 3}}
    assert step_cost(run_of("SWAD", steps=9, **around)).flops == pytest.approx(
        step_cost(run_of("DANN", steps=9, d_steps_per_g_step=3)).flops, rel=1e-6
    )


def test_sage_costs_two_passes_and_its_polar_factors():
    erm, sam, sage = (step_cost(run_of(name)).flops for name in ("ERM", "SAM", "SAGE"))
    made, _ = real(run_of("SAGE"))
    factors = sum(flops(partial(polar_factor, p.detach().flatten(1))) for p in made.params if p.ndim > 1)
    assert sam == pytest.approx(2 * erm, rel=1e-6)
    assert sage == pytest.approx(2 * erm + factors, rel=1e-3)
    assert factors > 0.01 * sage


@pytest.mark.parametrize("name", ["ERM", "SAGE"])
def test_the_third_batch_size_is_on_the_line_through_two(name):
    sizes = (3, 5, 7)
    run = {n: run_of(name, batch_size=n, width=16) for n in sizes}
    costs = {n: step_cost(run[n]) for n in sizes}
    assert costs[7].flops == pytest.approx(flops_of_real_step(run[7]), rel=0.05)
    assert costs[7].peak_bytes == pytest.approx(2 * costs[5].peak_bytes - costs[3].peak_bytes, rel=1e-6)


def test_a_method_around_another_one_costs_what_that_costs():
    """Of GGA's 250 trials a few are counted here, too."""
    around = {"around": "GGA", "around_hparams": {"start": 0, "end": 0, "trials": 250}}
    other = {"around": "GGA", "around_hparams": {"start": 0, "end": 0, "trials": 250, "radius": 1e-4}}
    expected = step_cost(run_of("GGA")).flops * 252 / 4  # passes with 250 trials, and with 2
    assert step_cost(run_of("SWAD", **around)).flops == pytest.approx(expected, rel=1e-3)
    assert step_cost(run_of("BetaAverage", **other)).flops == pytest.approx(expected, rel=1e-3)
    assert algorithms["SWAD"].repeating(run_of("SWAD", **around).hparams, 2)["around_hparams"]["trials"] == 2


@pytest.mark.parametrize("warmup", ["ERM", "SAM"])
def test_boas_bounces_are_counted_as_forward_passes(warmup):
    """Warm-up, start and bounces have costs of their own."""
    run = run_of("BOA", steps=4, warmup=warmup, warmup_steps=1, krylov_dim=3, brackets=2, sections=1)
    pass_flops = step_cost(run_of("ERM")).flops
    passes = (2 if warmup == "SAM" else 1) + 3 + 3 * (1 + 6 / 3)
    assert step_cost(run).flops * 4 == pytest.approx(passes * pass_flops, rel=0.05)


def test_radii_and_learning_rates_do_not_matter():
    some = [step_cost(run_of("SAGE", rho=rho, lr=lr)) for rho, lr in ((1e-3, 1e-4), (0.5, 1e-2))]
    assert some[0] == some[1]


# Memory


def allocated(function):
    """The most bytes that PyTorch's allocator had given out, beyond those from before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    events = sorted(
        (e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    )
    return max(accumulate(e.nbytes() for e in events))


def held(made, batch):
    """Bytes of weights, statistics, the optimizer's state and the minibatch."""
    state = [t for values in made.optimizer.state.values() for t in values.values() if isinstance(t, torch.Tensor)]
    return sum(t.nbytes for t in [*made.model.state_dict().values(), *state, batch.x, batch.y])


@pytest.mark.parametrize("model", BUILDS)
@pytest.mark.parametrize("name", ["ERM", "SAM", "SAGE", "GGA_L"])
def test_memory_of_a_step(name, model):
    run = run_of(name, model, batch_size=4)
    made, batch = real(run)
    seen = held(made, batch) + allocated(lambda: made.update(batch))
    assert step_cost(run).peak_bytes == pytest.approx(seen, rel=0.1)


def test_an_optimizer_without_state_needs_less():
    """Adam holds two vectors of the weights' size, SGD's momentum one, and SGD without momentum none."""
    weights = sum(p.nbytes for p in real(run_of("ERM"))[0].params)
    adam, momentum, none = (
        step_cost(run_of("ERM", optimizer=name, **hparams)).peak_bytes
        for name, hparams in (("adam", {}), ("sgd", {"momentum": 0.9}), ("sgd", {"momentum": 0.0}))
    )
    assert adam - momentum == pytest.approx(weights, rel=0.05)
    assert momentum - none == pytest.approx(weights, rel=0.05)


def test_bytes_are_those_of_storages_while_they_live():
    with Tally() as tally:
        a = torch.zeros(1000)
        b = a.view(10, 100)[3:]  # the same memory
        assert (tally.live, max(tally.trace)) == (4000, 4000)
        c = a + 1
        del a
        assert (tally.live, max(tally.trace)) == (8000, 8000)  # b holds it
        del b
        assert tally.live == 4000
        c.mul_(2)
        assert (tally.live, max(tally.trace)) == (4000, 8000)
        assert tally.restart() == 4000
        assert max(tally.trace) == 4000


# Plugins


def test_a_plugin_is_counted_as_it_is():
    @register("Thrice")
    class Thrice(Algorithm):
        """Passes three times over the minibatch."""

        passes_per_step = 3

        def update(self, batch):
            for _ in range(3):
                loss, g = self.gradient(batch)
            self.descend(g)
            return {"loss": loss}

    assert step_cost(run_of("Thrice")).flops == pytest.approx(3 * step_cost(run_of("ERM")).flops, rel=1e-6)


def test_a_plugin_that_reads_values_is_given_the_cost_of_its_passes(caplog):
    @register("Reads")
    class Reads(Algorithm):
        """Looks at the loss."""

        passes_per_step = 2

        def update(self, batch):
            loss, g = self.gradient(batch)
            if loss.item() > 1:
                loss, g = self.gradient(batch)
            self.descend(g)
            return {"loss": loss}

    cost = step_cost(run_of("Reads"))
    assert cost.flops == pytest.approx(2 * step_cost(run_of("ERM")).flops, rel=1e-6)
    assert "Reads does not run without data" in caplog.text


# The plan


def test_plan_adds_up_and_gives_sage_its_polar_factors():
    names = ("SAM", {}), ("SAGE", {}), ("SAGE", {"ns": "cubic"}), ("SAGE", {"orthogonalize": False})
    runs = [run_of(name, steps=6, **hparams) for name, hparams in names]
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
