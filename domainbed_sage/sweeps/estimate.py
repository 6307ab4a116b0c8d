"""What a sweep will cost before it is launched: runs, images, passes, FLOPs, memory, GPU hours."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from tqdm import tqdm

from domainbed_sage.algorithms import algorithms
from domainbed_sage.algorithms.problems import TASKS, kind_of
from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.specs import datasets
from domainbed_sage.data.splits import split
from domainbed_sage.sweeps.cost import step_cost

FORWARD_SHARE = 1 / 3  # of a forward-backward pass: the backward pass costs two forward ones


@dataclass(frozen=True)
class StepTime:
    """Measured time of one forward-backward pass.

    Attributes:
        seconds: of one pass.
        rows: images in it.
    """

    seconds: float
    rows: int

    @property
    def per_image(self) -> float:
        """Seconds per image of a forward-backward pass."""
        return self.seconds / self.rows


def cost(run: RunConfig) -> dict[str, float]:
    """Cost of one run: images trained (all passes), passes, and images evaluated on the lazy and the full grid.

    A pass is one forward-backward pass over a minibatch of `batch_size` rows from every source domain. On the lazy
    grid the held-out environments are counted at every evaluation, as if the source accuracy rose every time: an upper
    bound. FLOPs are those of training and of these evaluations, and `peak_bytes` the most that a step needs; both by
    the formulas of `domainbed_sage.sweeps.cost`. Of a dataset whose specification has no `counts`, no image is
    evaluated here; see `without_counts`.
    """
    passes = algorithms[run.algorithm].passes(run.steps, run.hparams)
    evaluations = len(range(0, run.steps, run.checkpoint_freq)) + ((run.steps - 1) % run.checkpoint_freq != 0)
    sizes = datasets[run.dataset].counts
    out = [len(split(n, i, run.trial_seed, run.holdout_fraction).out) for i, n in enumerate(sizes)]
    lazy = sum(sizes[i] if i in run.test_envs else out[i] for i in range(len(sizes)))
    evaluated = evaluations * (lazy if run.evaluation == "lazy" else sum(sizes))
    step = step_cost(run)
    flops = run.steps * step.flops + FORWARD_SHARE * evaluated * step.pass_flops
    return {
        "runs": 1,
        "passes": passes,
        "images_trained": run.steps * run.hparams["batch_size"] * len(run.source_envs),
        "images_passed": passes * run.hparams["batch_size"] * len(run.source_envs),
        "images_evaluated": evaluated,
        "images_full_grid": evaluations * sum(sizes),
        "flops": flops,
        "images_worth": flops / step.pass_flops,
        "peak_bytes": step.peak_bytes,
    }


def without_counts(runs: Sequence[RunConfig]) -> list[str]:
    """Datasets of these runs whose numbers of images are not known before they are read."""
    return [name for name in dict.fromkeys(run.dataset for run in runs) if not datasets[name].counts]


def refuse_tasks(runs: Iterable[RunConfig]) -> None:
    """Raise a `UserError` if some of these runs learn several tasks, whose cost is not counted."""
    if there := sorted({run.dataset for run in runs if kind_of(run.dataset) is TASKS}):
        raise UserError(
            f"What runs on several tasks cost is not counted. Found {', '.join(there)}. Time a few steps of "
            "`domainbed-sage train` instead: records have step_time."
        )


def plan(runs: Sequence[RunConfig], time: StepTime | None = None) -> pd.DataFrame:
    """Sum the cost per dataset and algorithm, with totals; with a step time, in hours of one device too.

    Evaluating an image costs a third of a forward-backward pass, and all other work as much time as a pass of as many
    FLOPs. Memory is the largest of any run.
    """
    refuse_tasks(runs)
    counted = tqdm(runs, desc="Counting", unit="run", delay=2, leave=False, disable=None)
    frame = pd.DataFrame([{"dataset": r.dataset, "algorithm": r.algorithm, **cost(r)} for r in counted])
    how = {name: "max" if name == "peak_bytes" else "sum" for name in frame.columns[2:]}
    table = frame.groupby(["dataset", "algorithm"], sort=False).agg(how)
    table.loc[("all", "all"), :] = table.agg(how)
    if time is not None:
        table["hours"] = table["images_worth"] * time.per_image / 3600
    return table
