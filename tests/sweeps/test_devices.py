"""Device hours by precision: the work of a step by the arithmetic that does it, and the rates of data sheets."""

import math

import pytest
from test_cost import run_of

from domainbed_sage.core.errors import UserError
from domainbed_sage.sweeps.cost import Work, step_cost, step_work
from domainbed_sage.sweeps.devices import DEVICES, device, hours, seconds
from domainbed_sage.sweeps.estimate import cost

VIT = {"model": "timm", "backbone": "vit_tiny_patch16_224", "pretrained": False, "image_size": 64}


def total(work):
    return work.full + work.low


def test_work_in_fp32_is_the_cost_of_a_step():
    run = run_of("ERM", **VIT)
    step, image = step_work(run, "fp32")
    assert step == Work(step_cost(run).flops, 0)
    assert image == Work(step_cost(run).pass_flops, 0)


def test_all_but_attention_is_done_three_times_in_parts():
    """A ViT's products are those of layers and patches, and the inner products of attention, 4 T² D of a block each."""
    run = run_of("ERM", **VIT)
    (once, _), (parts, _) = (step_work(run, p) for p in ("fp32", "bf16x3"))
    assert parts.low == pytest.approx(3 * (once.full - parts.full))
    rows, tokens, width, blocks = 3 * run.hparams["batch_size"], 17, 192, 12
    assert parts.full == pytest.approx(rows * blocks * 3.5 * 4 * tokens**2 * width)  # a pass back is 2.5 forward


def test_autocast_does_every_product_of_a_pass_in_16_bits():
    (once, _), (low, _) = (step_work(run_of("ERM", **VIT), p) for p in ("fp32", "bf16"))
    assert low.full == 0
    assert low.low == pytest.approx(once.full)


@pytest.mark.parametrize(("dtype", "times"), [("full", 0), ("bf16", 1), ("bf16x3", 3)])
def test_polar_factors_have_a_precision_of_their_own(dtype, times):
    """Of a small network, whose matrices take no restart: its products, or three for each."""
    full, other = (run_of("SAGE", ns_dtype=d, ns_steps=1) for d in ("full", dtype))
    passes = run_of("SAGE", orthogonalize=False)
    factors = step_work(full, "fp32")[0].full - step_work(passes, "fp32")[0].full
    assert step_work(other, "fp32")[0].low == pytest.approx(times * factors)


def test_seconds_are_work_by_rate():
    work, a100 = Work(19.5e12, 624e12), device("a100")
    assert seconds(work, a100, "bf16x3") == pytest.approx(1 + 2)
    assert seconds(work, a100, "tf32") == pytest.approx(0.125 + 2)
    assert seconds(Work(15.7e12, 0), device("v100"), "fp32") == pytest.approx(1)
    assert math.isnan(seconds(Work(1, 0), device("v100"), "tf32"))
    assert math.isnan(seconds(Work(1, 1), device("v100"), "bf16"))


def test_a_slice_has_its_sevenths():
    whole, part = device("h100"), device("h100-3g")
    assert part.name == "NVIDIA H100 SXM MIG 3g"
    assert (part.fp32, part.tf32, part.bf16) == pytest.approx(
        tuple(3 / 7 * r for r in (whole.fp32, whole.tf32, whole.bf16))
    )


@pytest.mark.parametrize("name", ["a101", "", "A100", "a100-8g", "a100-0g", "l40s-3g", "v100-1g", "a100-3g.20gb"])
def test_unknown_devices(name):
    with pytest.raises(UserError, match=r"--device should be one of v100, a100, .* such as a100-3g, .* Found '"):
        device(name)


def test_hours_add_up():
    runs = [run_of("ERM", steps=6, **VIT), run_of("SAM", steps=6)]
    table = hours(runs, DEVICES["a100"], 0.5)
    assert list(table.columns) == ["fp32", "tf32", "bf16x3", "bf16"]
    assert table.loc[("all", "all")].tolist() == pytest.approx((table.iloc[0] + table.iloc[1]).tolist())
    vit = table.loc[("EmojiStyles", "ERM")]
    assert vit["fp32"] == pytest.approx(cost(runs[0])["flops"] / 19.5e12 / 0.5 / 3600)
    assert vit["tf32"] == pytest.approx(vit["fp32"] / 8)
    assert vit["bf16"] == pytest.approx(vit["fp32"] / 16)
    assert vit["fp32"] / 5.4 < vit["bf16x3"] < vit["fp32"] / 4  # 16 / 3, and attention
    assert hours(runs[1:], DEVICES["v100"], 0.5)["tf32"].isna().all()
