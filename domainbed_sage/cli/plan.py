"""`domainbed-sage sweep plan`: what a sweep will cost."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, cast

from domainbed_sage.cli import as_json
from domainbed_sage.cli.numbers import positive, share, whole
from domainbed_sage.cli.terminal import aligned, folded, width
from domainbed_sage.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from domainbed_sage.config import RunConfig
    from domainbed_sage.sweeps.estimate import StepTime

REPEATS = 3
TOTAL = ("all", "all")  # the last row of the plan
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
SHORTENED = "k, M, G: thousands, millions and billions, to four digits."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `plan`."""
    group = parser.add_argument_group("plan")
    as_json.add_argument(group)
    group.add_argument("--pass_time", type=positive, help="seconds of one forward-backward pass, measured on your GPU")
    group.add_argument("--pass_rows", type=whole(1), default=36, help="images in that pass (default: %(default)s)")
    group.add_argument("--check", action="store_true", help="also check that data and weights are on this machine")
    group.add_argument("--measure", action="store_true", help="measure a pass of the first run's model on this machine")
    group.add_argument("--device", metavar="GPU", help="hours in every precision from a data sheet: a100, h100-3g, …")
    group.add_argument(
        "--efficiency",
        type=share,
        default=0.4,
        help="of the data sheet's rates that a step reaches (default: %(default)s)",
    )


def show(runs: "Sequence[RunConfig]", args: argparse.Namespace, keep: Callable[[], None]) -> None:
    """Keep the plan; print runs, passes, images, FLOPs, memory and, with a known pass time, hours of one device."""
    from domainbed_sage.sweeps import devices
    from domainbed_sage.sweeps.estimate import StepTime, on_tasks, plan, without_counts

    gpu = devices.device(args.device) if args.device else None
    keep()
    taken = measure(runs[0], args.pass_rows) if args.measure else None
    if args.pass_time:
        taken = StepTime(args.pass_time, args.pass_rows)
    table, unknown = plan(runs, taken), without_counts(runs)
    if args.json:
        as_json.show(as_objects(table, unknown))
        return
    exact = table_text(table, unknown, "{:,.0f}".format)
    fits = max(map(len, exact.splitlines())) <= width()
    print(exact if fits else table_text(table, unknown, shortened))
    print()
    for sentence in remarks(table, unknown, taken, of_gpu=gpu is not None, of_tasks=any(map(on_tasks, runs))):
        print(folded(sentence, hang=2))
    if not fits:
        print(SHORTENED)
    if gpu:
        print(f"\n{devices.described(runs, gpu, args.efficiency)}")


def table_text(table: "pd.DataFrame", unknown: Sequence[str], count: Callable[[float], str]) -> str:
    """The table of `estimate.plan`: a line for each dataset, below it its algorithms.

    Args:
        table: the costs, and hours if it has them.
        unknown: datasets whose evaluated images are not known.
        count: how numbers of passes and images are printed.
    """
    rows, shown = heads("hours" in table), ""
    costs = cast("dict[tuple[str, str], dict[str, float]]", table.to_dict("index"))
    for (dataset, algorithm), row in costs.items():
        of_all = (dataset, algorithm) == TOTAL
        if dataset != shown and not of_all:
            rows.append([dataset])
        shown = dataset
        numbers = [f"{row['runs']:,.0f}", *(count(row[name]) for name in ("passes", "images_trained", "images_passed"))]
        numbers += ["?" if dataset in unknown else count(row["images_evaluated"])]
        numbers += [f"{row['flops'] / 1e15:,.3g}", f"{row['peak_bytes'] / 1e9:,.2f}"]
        numbers += [f"{row['hours']:,.1f}"] if "hours" in row else []
        rows.append([dataset if of_all else f"  {algorithm}", *numbers])
    return aligned(rows)


def heads(with_hours: bool) -> list[list[str]]:
    """The two lines above the table."""
    last = ["hours"] if with_hours else []
    return [
        ["", "", "", *["images"] * 3],
        ["", "runs", "passes", "trained", "passed", "evaluated", "PFLOP", "GB", *last],
    ]


def shortened(number: float) -> str:
    """A count with four significant digits, e.g. ``617.1 M``; see `SHORTENED`."""
    text = f"{number:.4g}"
    for factor, unit in UNITS:
        if float(text) >= factor:
            return f"{float(text) / factor:.4g} {unit}"
    return text


def remarks(
    table: "pd.DataFrame", unknown: Sequence[str], taken: "StepTime | None", *, of_gpu: bool, of_tasks: bool = False
) -> Iterator[str]:
    """What the numbers mean, and what is not in them; `of_gpu` if hours by a data sheet follow.

    `of_tasks` if some runs are on several tasks.
    """
    evaluated, full = (float(table[name].iloc[-1]) for name in ("images_evaluated", "images_full_grid"))
    grid = f"at most {evaluated:,.0f}; DomainBed's full grid evaluates {full:,.0f}"
    times = f", {full / evaluated:.1f} times as many" if evaluated else ""
    grid = f"{evaluated:,.0f}" if evaluated == full else f"{grid}{times}"
    yield (
        f"A pass is one forward-backward pass over a minibatch. Images evaluated: {grid}. GB: the most that a step "
        "holds in float32, weights and optimiser included; a device needs 1 to 2 GB more for its libraries."
    )
    if of_tasks:
        yield (
            "On several tasks, passes are FLOPs of the updates, in those of a pass for the sum of all losses: a "
            "solver's K backward passes share one forward pass, and what only one task reaches is passed once."
        )
    if unknown:
        yield (
            f"Without the evaluations on {', '.join(unknown)}: how many images it has is not known before it is read, "
            "unless its specification says so (`counts`)."
        )
    if taken:
        yield (
            f"Hours are of one device at {taken.seconds:.3g} s for a forward-backward pass over {taken.rows} images; "
            "an evaluated image counts for a third of a pass, and SAGE's Newton-Schulz iterations as their FLOPs. Data "
            "loading and checkpoints are not in them."
        )
    elif not of_gpu:
        measure = "" if of_tasks else "--measure, "
        yield (
            f"For hours, give --pass_time SECONDS measured on your device (of --pass_rows images), {measure}or the "
            "name of a GPU: --device."
        )


def as_objects(table: "pd.DataFrame", uncounted: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the plan as plain numbers; what is evaluated of a dataset without known counts is null."""
    rows = [{str(name): value for name, value in row.items()} for row in table.reset_index().to_dict("records")]
    nothing = dict.fromkeys(("images_evaluated", "images_full_grid"))
    return [row | nothing if row["dataset"] in uncounted else row for row in rows]


def measure(run: "RunConfig", rows: int) -> "StepTime":
    """Time ERM's step with the run's model on random images, on this machine.

    Raises:
        UserError: it is a run on several tasks.
    """
    import torch

    from domainbed_sage.algorithms import Algorithm, Problem, algorithms
    from domainbed_sage.data.batch import DomainBatch
    from domainbed_sage.data.specs import datasets
    from domainbed_sage.models import build_model, models
    from domainbed_sage.models.optimizers import optimizers
    from domainbed_sage.sweeps.estimate import StepTime, on_tasks

    if on_tasks(run):
        raise UserError(
            f"--measure times networks with classes, and {run.dataset} has several tasks. Run a few steps with "
            "`domainbed-sage train`: records have step_time. Hours by a data sheet: --device."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = models[run.model]
    classes = [f"object {i}" for i in range(datasets[run.dataset].num_classes)]
    model = build_model(run.model, classes, run.of(spec.build)).to(device)
    erm: Algorithm = algorithms["ERM"](Problem(model, optimizers[run.optimizer], 1, run.precision))
    x = torch.randn(rows, 3, model.image.size, model.image.size, device=device)
    batch = DomainBatch(x, torch.zeros(rows, dtype=torch.long, device=device), (rows,))
    seconds = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        erm.update(batch)["loss"].item()
        seconds.append(time.perf_counter() - began)
    return StepTime(median(seconds[1:]), rows)
