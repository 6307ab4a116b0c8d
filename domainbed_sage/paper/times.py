"""Times of a step: medians over alternating rounds, of small networks on one core. They differ from call to call."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from domainbed_sage.core.seeding import seed_hash
from domainbed_sage.geometry.perturb import spectral_ascent
from domainbed_sage.paper import steps

ROUNDS, FEW = 3, 1
K = 3
ASCENT = "ascent of SAGE"
WHAT = (
    f"Wall time of `update` at K = {K} on one core, in seconds: the median of rounds in which the methods take a step "
    f"one after the other, the first round left out. `{ASCENT}` is the spectral perturbation alone, a part of "
    "SAGE's steps."
)


def measured(seed: int, rounds: int) -> dict[str, Any]:
    """For each network of `steps.SMALL`: what was timed, the medians in seconds, and ratios to ERM's."""
    found: dict[str, Any] = {"what": WHAT, "rounds": rounds, "torch": torch.__version__, "networks": {}}
    with _one_thread(seed):
        for name, size in steps.SMALL.items():
            seconds = _medians(size, rounds)
            ratios = {method: taken / seconds["ERM"] for method, taken in seconds.items()}
            found["networks"][name] = {"timed": size.words, "seconds": seconds, "over_ERM": ratios}
    return found


def _medians(size: steps.Size, rounds: int) -> dict[str, float]:
    work: dict[str, Callable[[], Any]] = {}
    rows = steps.batch(size, K, torch.rand)
    for method in steps.METHODS:
        made = steps.algorithm(steps.network(size, K), method, size, K)
        work[method] = lambda made=made: made.update(rows)  # type: ignore[misc]
    params = tuple(p.detach() for p in steps.network(size, K).parameters())
    g = tuple(torch.randn_like(p) for p in params)
    work[ASCENT] = lambda: spectral_ascent(params, g, 1e-6)
    taken: dict[str, list[float]] = {name: [] for name in work}
    for at in range(rounds + 1):
        for name, step in work.items():
            began = time.perf_counter()
            step()
            if at:
                taken[name].append(time.perf_counter() - began)
    return {name: median(own) for name, own in taken.items()}


@contextmanager
def _one_thread(seed: int) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed_hash(seed, "times"))
            yield
    finally:
        torch.set_num_threads(threads)
