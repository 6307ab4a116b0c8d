"""`domainbed-sage sweep plan`: what a sweep will cost."""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from domainbed_sage.cli import as_json
from domainbed_sage.cli.numbers import positive, share, whole

if TYPE_CHECKING:
    from pandas import DataFrame

    from domainbed_sage.config import RunConfig
    from domainbed_sage.sweeps.estimate import StepTime

REPEATS = 3


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
    from domainbed_sage.sweeps.estimate import StepTime, plan, without_counts

    gpu = devices.device(args.device) if args.device else None
    keep()
    taken = measure(runs[0], args.pass_rows) if args.measure else None
    if args.pass_time:
        taken = StepTime(args.pass_time, args.pass_rows)
    table = plan(runs, taken)
    if args.json:
        as_json.show(as_objects(table, without_counts(runs)))
        return
    counts = ["runs", "passes", "images_trained", "images_passed", "images_evaluated"]
    shown = table[counts].map(lambda n: f"{n:,.0f}")
    unknown = without_counts(runs)
    shown.loc[shown.index.isin(unknown, level=0), "images_evaluated"] = "?"
    shown["PFLOP"] = (table["flops"] / 1e15).map("{:,.3g}".format)
    shown["GB"] = (table["peak_bytes"] / 1e9).map("{:,.2f}".format)
    if taken:
        shown["hours"] = table["hours"].map("{:,.1f}".format)
    print(shown.rename(columns=lambda name: name.replace("_", " ")).to_string())
    evaluated, full = (float(table[name].iloc[-1]) for name in ("images_evaluated", "images_full_grid"))
    grid = f"at most {evaluated:,.0f}; DomainBed's full grid evaluates {full:,.0f}"
    times = f", {full / evaluated:.1f} times as many" if evaluated else ""
    print(
        f"\nA pass is one forward-backward pass over a minibatch. Images evaluated: {grid}{times}. GB: the most that a "
        "step holds in float32, weights and optimiser included; a device needs 1 to 2 GB more for its libraries."
    )
    if unknown:
        print(
            f"Without the evaluations on {', '.join(unknown)}: how many images it has is not known before it is read, "
            "unless its specification says so (`counts`)."
        )
    if taken:
        print(
            f"Hours are of one device at {taken.seconds:.3g} s for a forward-backward pass over {taken.rows} images; "
            "an evaluated image counts for a third of a pass, and SAGE's Newton-Schulz iterations as their FLOPs. Data "
            "loading and checkpoints are not in them."
        )
    elif not gpu:
        print(
            "For hours, give --pass_time SECONDS measured on your device (of --pass_rows images), --measure, or the "
            "name of a GPU: --device."
        )
    if gpu:
        print(f"\n{devices.described(runs, gpu, args.efficiency)}")


def as_objects(table: "DataFrame", uncounted: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the plan as plain numbers; what is evaluated of a dataset without known counts is null."""
    rows = [{str(name): value for name, value in row.items()} for row in table.reset_index().to_dict("records")]
    nothing = dict.fromkeys(("images_evaluated", "images_full_grid"))
    return [row | nothing if row["dataset"] in uncounted else row for row in rows]


def measure(run: "RunConfig", rows: int) -> "StepTime":
    """Time ERM's step with the run's model on random images, on this machine."""
    import torch

    from domainbed_sage.algorithms import Algorithm, Problem, algorithms
    from domainbed_sage.data.batch import DomainBatch
    from domainbed_sage.data.specs import datasets
    from domainbed_sage.models import build_model, models
    from domainbed_sage.models.optimizers import optimizers
    from domainbed_sage.sweeps.estimate import StepTime

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
