"""What a training step costs, before it is run: FLOPs and memory of the algorithm's own `update`, on fake tensors.

Fake tensors have a shape and a size but no values, so a step on them takes neither memory nor arithmetic. The real
`update` of the real model runs at the real batch size, with the optimizer's state in place; every operation is noted
with its FLOPs and the memory of its results. An algorithm states two things about its cost. `Algorithm.passes`: where
its steps differ in their passes (GGA's search), one of each kind is counted, and the mean taken over the run.
`Algorithm.repeated`: of a step that repeats its passes very often a few are run, and FLOPs scaled by `passes`.

FLOPs are those of matrix products, convolutions and attention, by PyTorch's formulas; other work (elementwise, SVD) is
none. Memory is that of all tensors, as on a GPU in float32 with fused attention: weights, optimizer state, batch,
activations, gradients already allocated at peak memory, stacked polar factors. It leaves out the workspace of the math
libraries, the caching of the allocator, and the first step's check of the perturbation.

Runs that cost the same share a count. Of a float hyperparameter only whether it is zero matters; a head that is lighter
than `cases.LIGHT_HEAD` of the network is counted as one of that weight; solvers that differ in work on K numbers share
one; from the third batch size on, FLOPs and memory at every moment are extrapolated from two. An `update` that needs
values (`item`, a branch on a tensor, a boolean mask) cannot run this way: a warning says so, and it is assigned the
FLOPs of its `passes`, and the memory of a plain step.
"""

import copy
import logging
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch._subclasses import FakeTensorMode

from domainbed_sage.algorithms import Algorithm, algorithms
from domainbed_sage.algorithms.erm import ERM
from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.perturb import Survival
from domainbed_sage.geometry.products import Precision
from domainbed_sage.models.checkpoints import first_line
from domainbed_sage.sweeps.cases import Alike, Case, case_of
from domainbed_sage.sweeps.tally import Tally

log = logging.getLogger(__name__)

Count: TypeAlias = NDArray[np.float64]  # FLOPs of a pass and what belongs to it, all and in 16 bits; then bytes alive
WORK = 2  # so many numbers come before the bytes alive after each allocation


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step, averaged over the run.

    Attributes:
        flops: of an update.
        pass_flops: of one forward and backward pass over one image.
        peak_bytes: the most memory an update needs, weights and optimizer state included.
    """

    flops: float
    pass_flops: float
    peak_bytes: float


@dataclass(frozen=True)
class Work:
    """FLOPs by the arithmetic that computes them.

    Attributes:
        full: in fp32, or in TF32 where it is allowed.
        low: in bf16 or fp16; of products of parts, the FLOPs that are really done, three or six times as many.
    """

    full: float
    low: float


def step_work(run: RunConfig, precision: Precision) -> tuple[Work, Work]:
    """Work of a step of this run in a precision, averaged over its steps, and of a pass over one image."""
    step, image, _ = _counts(run, precision)
    return _work(step), _work(image)


def _work(pair: Count) -> Work:
    flops, low = (float(n) for n in pair)
    return Work(flops - low, low)


def step_cost(run: RunConfig) -> StepCost:
    """Cost of a step of this run, averaged over its steps."""
    step, image, peak = _counts(run, "fp32")
    return StepCost(float(step[0]), float(image[0]), peak)


def _counts(run: RunConfig, precision: Precision) -> tuple[Count, Count, float]:
    """The first `WORK` numbers of a `Count`, of a step on average and of a pass over one image; the most bytes."""
    cls, batch_size = algorithms[run.algorithm], run.hparams["batch_size"]
    kinds = _kinds(cls, run.steps, Alike(run.of(cls)))
    counts = [count(case_of(run, cls, step, precision), batch_size) for step, _ in kinds]
    plain = count(case_of(run, ERM, 0, precision).plain, batch_size)
    step = np.sum([passes * c[:WORK] for (_, passes), c in zip(kinds, counts, strict=True)], axis=0) / run.steps
    return step, plain[:WORK] / batch_size, max(float(c[WORK:].max()) for c in counts)


@cache
def _kinds(cls: type[Algorithm], steps: int, hparams: Alike) -> list[tuple[int, int]]:
    """The first step of every kind, and the passes of all its steps together; steps of a kind have equal passes."""
    passes = np.diff([cls.passes(t, hparams) for t in range(steps + 1)])
    named = np.array([cls.kind_of_step(t, hparams) for t in range(steps)])
    kinds, first, times = np.unique(np.stack([passes, named]), axis=1, return_index=True, return_counts=True)
    return list(zip(first.tolist(), (kinds[0] * times).tolist(), strict=True))


_counted: dict[Case, dict[int, Count]] = defaultdict(dict)


def count(case: Case, batch_size: int) -> Count:
    """Cost of an update with `batch_size` rows, of every domain; from the third size on, by the line through two."""
    known = _counted[case]
    if batch_size not in known:
        two = list(known.items())[:2]
        if len(two) == 2 and len(two[0][1]) == len(two[1][1]):
            (m, a), (n, b) = two
            known[batch_size] = a + (b - a) * (batch_size - m) / (n - m)
        else:
            known[batch_size] = _count(case, batch_size)
    return known[batch_size]


def _count(case: Case, batch_size: int) -> Count:
    reason = ""
    for everywhere in (True, False):
        try:
            return _run(case, batch_size, everywhere)
        except Exception as error:  # an update may need anything that fake tensors lack
            reason = f"{first_line(error)} ({type(error).__name__})"
    if case.algorithm is ERM:
        raise UserError(f"The cost of {case.model} cannot be counted, the model does not run without data: {reason}.")
    log.warning("%s does not run without data: %s. Its cost is taken to be its passes'.", case.algorithm.name, reason)
    return count(replace(case, algorithm=ERM, step=0), batch_size)


def _run(case: Case, batch_size: int, everywhere: bool) -> Count:
    """Run an update on fake tensors, and once more if it leaves state of its own behind.

    If not `everywhere`, tensors created from scratch are real: slower, but an update can read a permutation it drew.
    """
    cls, hparams = case.algorithm, case.hparams
    network = copy.deepcopy(case.network())
    with Tally() as tally, ExitStack() as fake:
        fake.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        network.to_empty(device="cpu")
        made = cls(case.problem(network), **hparams.of(cls))
        batch = case.batch(batch_size)
        made.descend(made.params)  # any gradient: this makes the optimizer's state
        made.survival, made.step = Survival(1.0, 1.0), case.step
        if not everywhere:
            fake.close()
        for _ in range(2):
            before = tally.restart()
            made.update(batch)
            if tally.live == before:
                break
    passes = cls.passes(case.step + 1, hparams) - cls.passes(case.step, hparams)
    return np.array([tally.flops / passes, tally.low / passes, *tally.trace], dtype=float)
