"""The cost of a step: FLOPs against PyTorch's own count of a real step and by hand; verdicts; what repeats."""

import json
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from domainbed_sage.cli import main
from domainbed_sage.models.mtan_segnet import mtan_segnet
from domainbed_sage.paper import cost, flops, steps, times
from domainbed_sage.paper.flops import Cost
from domainbed_sage.sweeps.tally import CPU_ATTENTION

TINY = {
    "ViT-B/16": steps.Size("test_vit", 2, 32, 32),
    "MTAN-SegNet": steps.Size("", 1, 32, 64, 4),
}
VIT, MTAN = TINY.values()


pytestmark = pytest.mark.usefixtures("in_one_thread")


@pytest.fixture(scope="module")
def counted():
    return {VIT: flops.count(VIT, 3), MTAN: flops.count(MTAN, 2)}


@pytest.mark.parametrize("method", steps.METHODS)
@pytest.mark.parametrize("size", [VIT, MTAN], ids=["domains", "tasks"])
def test_steps_are_those_of_a_real_update(counted, method, size):
    """But for the iterations of «as written», which the suite does not take."""
    K = 3 if size is VIT else 2
    made = steps.algorithm(steps.network(size, K), method, size, K)
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        made.update(steps.batch(size, K, torch.rand))
    ours, there = counted[size].steps[method], counter.get_total_flops()
    if method == "SAGE as written":
        ours += counted[size].ascent - counted[size].quintic
    assert ours == there


def test_passes_of_a_network_that_mixes_no_samples(counted):
    """SAM takes two; K losses in one graph (1 + 2K) / 3 and one more, but for the first layer's missing gradient."""
    found = counted[VIT]
    passes = {method: total / found.steps["ERM"] for method, total in found.steps.items()}
    assert passes["SAM"] == 2
    assert passes["SAGE here"] - found.ascent / found.steps["ERM"] == pytest.approx(2, rel=1e-9)
    written = passes["SAGE as written"] - found.quintic / found.steps["ERM"]
    assert written == pytest.approx((1 + 2 * 3) / 3 + 1, rel=0.05)


def test_both_forms_of_sage_take_the_same_step():
    """The price differs, not the gradients."""
    size, after = VIT, []
    for method in ("SAGE as written", "SAGE here"):
        torch.manual_seed(0)
        made = steps.algorithm(steps.network(size, 3), method, size, 3)
        rows = steps.batch(size, 3, torch.rand)
        metrics = made.update(rows)
        after.append(float(metrics["agreement"]))
    assert after[0] == pytest.approx(after[1], rel=1e-4)


def test_iterations_by_hand():
    """A matrix of 4 x 6 and a kernel seen as 2 x 18; a vector has none."""
    shapes = (torch.Size([4, 6]), torch.Size([2, 2, 3, 3]), torch.Size([7]))
    cubic = 5 * (2 * (2 * 4 * 4 * 6) + 2 * (2 * 2 * 2 * 18))
    assert flops._written("Eq. 7", shapes) == cubic
    assert flops._written("quintic", shapes) == cubic + 5 * (2 * 4**3 + 2 * 2**3)


@pytest.mark.parametrize(("tasks", "expected"), [(3, 401), (2, 374)])
def test_iterations_of_mtan(tasks, expected):
    """GFLOP of Eq. 7 on the networks for NYU-v2 and, with two tasks and 7 classes, for Cityscapes."""
    with torch.device("meta"):
        shapes = [p.shape for p in mtan_segnet(steps.TASKS[:tasks]).parameters()]
    assert flops._written("Eq. 7", shapes) / 1e9 == pytest.approx(expected, abs=0.6)


def synthetic(written, here, *, quintic=4.0, gram=0.0):
    return Cost(
        {"ERM": 100.0, "SAM": 200.0, "SAGE as written": written, "SAGE here": here}, 2.0, 3.0, quintic, gram, 10
    )


@pytest.mark.parametrize(
    ("written", "here", "verdict"),
    [
        (215.0, 215.0, "holds"),
        (350.0, 219.0, "holds in part"),
        (350.0, 221.0, "does not hold"),
        (179.0, 240.0, "does not hold"),
    ],
)
def test_verdict_of_the_total(written, here, verdict):
    assert cost._of_ratio("ViT-B/16", {3: synthetic(written, here)}, "how").verdict == verdict


@pytest.mark.parametrize(("quintic", "verdict"), [(10.0, "holds in part"), (12.0, "does not hold")])
def test_verdict_of_the_iterations(quintic, verdict):
    """5 % of a step whose passes are 198 are 10.4."""
    finding = cost._of_iterations("ViT-B/16", synthetic(350.0, 200.0, quintic=quintic), "how")
    assert finding.verdict == verdict
    assert finding.numbers["written out"] == pytest.approx(quintic / (198 + quintic))
    assert finding.numbers["written out, 12 images"] == pytest.approx(quintic / (198 / 3 + quintic))


@pytest.mark.parametrize(("gram", "verdict"), [(4.9, "holds"), (5.1, "does not hold")])
def test_verdict_of_the_cosines(gram, verdict):
    assert cost._of_cosines("ViT-B/16", {3: synthetic(1.0, 1.0, gram=gram)}, "how").verdict == verdict


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(steps, "FULL", {"ViT-B/16": VIT})
    monkeypatch.setattr(cost, "FEW_DOMAINS", (3,))
    monkeypatch.setattr(steps, "SMALL", {"MTAN-SegNet": MTAN})


def test_all_but_the_times_repeats(tiny, tmp_path, capsys):
    for name in "ab":
        threads = torch.get_num_threads()
        assert main(["paper", "cost", "--quick", "--output_dir", str(tmp_path / name)]) == 0
        assert torch.get_num_threads() == threads
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    timed = json.loads(first.pop("cost_times.json"))
    second.pop("cost_times.json")
    assert first == second
    assert set(first) == {"cost.json", "cost.md", "cost.html", "cost.png"}
    (network,) = timed["networks"].values()
    assert network["timed"] == MTAN.words
    assert set(network["seconds"]) == {*steps.METHODS, times.ASCENT}
    assert network["over_ERM"]["ERM"] == 1


def test_methods_take_turns_and_the_first_round_is_left_out(monkeypatch):
    """The clock advances by 1 s, 2 s, 3 s, … at each step, so that a median names its round."""
    ticks, order, now = iter(range(1, 1000)), [], [0.0]

    def step(name, *_, **__):
        order.append(name)
        now[0] += next(ticks)

    class Made:
        def __init__(self, name):
            self.update = partial(step, name)

    monkeypatch.setattr(steps, "algorithm", lambda model, method, size, K: Made(method))
    monkeypatch.setattr(times, "spectral_ascent", partial(step, times.ASCENT))
    monkeypatch.setattr(times.time, "perf_counter", lambda: now[0])
    found = times._medians(MTAN, rounds=3)
    every = [*steps.METHODS, times.ASCENT]
    assert order == every * 4
    assert found == {name: float(1 + at + 2 * len(every)) for at, name in enumerate(every)}
