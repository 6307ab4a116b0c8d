"""What a sweep will cost before it is launched: runs, images, passes, FLOPs, memory, GPU hours."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from tqdm import tqdm

from domainbed_sage.algorithms import algorithms
from domainbed_sage.algorithms.problems import TASKS, kind_of, specification
from domainbed_sage.config import RunConfig
from domainbed_sage.data.multitask.base import task_datasets
from domainbed_sage.data.specs import datasets
from domainbed_sage.data.splits import split
from domainbed_sage.sweeps.cost import StepCost, step_cost

SINGLE = "STL"  # networks for one task each, as tables of several tasks call them
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

    A pass is one forward-backward pass over a minibatch: of `batch_size` rows from every source domain, or of as many
    rows with the targets of all tasks. Domains: on the lazy grid the held-out environments are counted at every
    evaluation, as if the source accuracy rose every time, an upper bound; of a dataset whose specification has no
    `counts`, no image is evaluated here, see `without_counts`. Tasks: passes are the FLOPs of the updates, in those of
    passes, since an update has more forward than backward passes, or the other way round; every evaluation is of all
    test samples. FLOPs are those of training and of these evaluations, and `peak_bytes` the most that a step needs;
    both by the formulas of `domainbed_sage.sweeps.cost`.
    """
    step = step_cost(run)
    count = _of_tasks if on_tasks(run) else _of_domains
    numbers = count(run, step)
    flops = run.steps * step.flops + FORWARD_SHARE * numbers["images_evaluated"] * step.pass_flops
    more = {"flops": flops, "images_worth": flops / step.pass_flops, "peak_bytes": step.peak_bytes}
    return {"runs": 1, **numbers, **more}


def _of_domains(run: RunConfig, step: StepCost) -> dict[str, float]:
    """Passes and images."""
    del step
    passes = algorithms[run.algorithm].passes(run.steps, run.hparams)
    sizes = datasets[run.dataset].counts
    out = [len(split(n, i, run.trial_seed, run.holdout_fraction).out) for i, n in enumerate(sizes)]
    lazy = sum(sizes[i] if i in run.test_envs else out[i] for i in range(len(sizes)))
    rows = run.hparams["batch_size"] * len(run.source_envs)
    evaluations = len(range(0, run.steps, run.checkpoint_freq)) + ((run.steps - 1) % run.checkpoint_freq != 0)
    return {
        "passes": passes,
        "images_trained": run.steps * rows,
        "images_passed": passes * rows,
        "images_evaluated": evaluations * (lazy if run.evaluation == "lazy" else sum(sizes)),
        "images_full_grid": evaluations * sum(sizes),
    }


def _of_tasks(run: RunConfig, step: StepCost) -> dict[str, float]:
    """Passes and images; of the last minibatch of an epoch, which may have fewer rows, the rows that it has."""
    counts = task_datasets[run.dataset].counts
    epochs, within = divmod(run.steps, -(-counts["train"] // run.hparams["batch_size"]))
    trained = epochs * counts["train"] + within * run.hparams["batch_size"]
    evaluated = -(-run.steps // run.checkpoint_freq) * counts["test"]  # after full steps, and after the last one
    passes = run.steps * step.flops / (step.pass_flops * run.hparams["batch_size"])
    numbers = {"passes": passes, "images_trained": trained, "images_passed": passes * trained / run.steps}
    return {**numbers, "images_evaluated": evaluated, "images_full_grid": evaluated}


def without_counts(runs: Sequence[RunConfig]) -> list[str]:
    """Datasets of these runs whose numbers of images are not known before they are read."""
    return [name for name in dict.fromkeys(run.dataset for run in runs) if not specification(name).counts]


def on_tasks(run: RunConfig) -> bool:
    """Whether a run is on several tasks."""
    return kind_of(run.dataset) is TASKS


def method(run: RunConfig) -> str:
    """What a run's row of the plan is called: its algorithm, on several tasks with its solver."""
    if not on_tasks(run):
        return run.algorithm
    return SINGLE if run.hparams["only_task"] else f"{run.algorithm}-{run.hparams['solver']}"


def plan(runs: Sequence[RunConfig], time: StepTime | None = None) -> pd.DataFrame:
    """Sum the cost per dataset and algorithm, with totals; with a step time, in hours of one device too.

    Evaluating an image costs a third of a forward-backward pass, and all other work as much time as a pass of as many
    FLOPs. Memory is the largest of any run.
    """
    counted = tqdm(runs, desc="Counting", unit="run", delay=2, leave=False, disable=None)
    frame = pd.DataFrame([{"dataset": r.dataset, "algorithm": method(r), **cost(r)} for r in counted])
    how = {name: "max" if name == "peak_bytes" else "sum" for name in frame.columns[2:]}
    table = frame.groupby(["dataset", "algorithm"], sort=False).agg(how)
    table.loc[("all", "all"), :] = table.agg(how)
    if time is not None:
        table["hours"] = table["images_worth"] * time.per_image / 3600
    return table
