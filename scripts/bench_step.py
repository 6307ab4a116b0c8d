"""Time, FLOPs and memory of one training step: every algorithm compared with ERM, SAM and plain PyTorch.

    python scripts/bench_step.py [--model clip_vit_b16] [--domains 3] [--rows 12] [--rounds 5] [--json FILE]

The cases run in one process, on one model and one optimizer, and take turns in a different order each round: the
registered algorithms, the steps of `plain_loops.py` (whose SAGE is Algorithm 1 taken literally), and the components
that make SAGE more expensive than SAM, each with its plain counterpart. Images and labels are random, and so are the
weights unless --hparams says otherwise; neither changes the arithmetic. FLOPs are PyTorch's own count: matrix products,
convolutions and, on CUDA, attention (not counted on CPU). Peak memory is the weights, the optimizer state and what the
step allocates on top of them; on CPU, scratch space of the math libraries is not included. GGA is measured in a step of
its search with --trials candidates (250 in the method itself). --precisions adds SAGE and a pass in other precisions;
on a CPU, TF32 and the products of parts are emulated, so their times there say nothing of a GPU.
"""

import argparse
import copy
import json
import platform
import random
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import bench_arguments
import matplotlib.pyplot as plt
import pandas as pd
import plain_loops
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.core.hparams import declared
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import Survival
from domainbed_sage.geometry.polar import polar_factors
from domainbed_sage.models import Model, models
from domainbed_sage.models.arithmetic import tf32_allowed
from domainbed_sage.models.optimizers import adam

Cases = dict[str, Callable[[], object]]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = bench_arguments.parser(__doc__)
    parser.add_argument("--domains", type=int, default=3, help="K")
    parser.add_argument("--rows", type=int, default=12, help="images in the minibatch, summed over all domains")
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--trials", type=int, default=2, help="candidates of GGA's search step")
    parser.add_argument("--only", nargs="*", help="names of the cases to measure (default: all)")
    parser.add_argument(
        "--precisions", nargs="*", default=[], help="also SAGE and a pass in these: fp32 tf32 bf16x3 bf16"
    )
    parser.add_argument("--layouts", action="store_true", help="also measure channels-last and compiled passes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--picture", type=Path, help="PNG or SVG")
    return parser.parse_args()


def cases(args: argparse.Namespace) -> tuple[Cases, int]:
    """Every step to be timed, all on one model and one Adam, and the bytes of weights and optimizer state."""
    torch.manual_seed(0)
    model = models[args.model].build([f"class {i}" for i in range(args.classes)], **args.hparams).to(args.device)
    params = [p for p in model.parameters() if p.requires_grad]
    fused, plain = adam(params, lr=1e-9), torch.optim.Adam(params, lr=1e-9)

    def make_optimizer(params: Any, **own: Any) -> torch.optim.Optimizer:
        return adam(params, **own) if own else fused  # one for all, but for further networks of a method

    problem = Problem(model, make_optimizer, args.domains)
    sizes = tuple(len(part) for part in torch.arange(args.rows).tensor_split(args.domains))
    x = torch.randn(args.rows, 3, model.image.size, model.image.size, device=args.device)
    batch = DomainBatch(x, torch.arange(args.rows, device=args.device) % args.classes, sizes)

    def step(name: str, **hparams: Any) -> Callable[[], object]:
        made = algorithms[name](problem, **hparams)
        return partial(made.update, batch)

    found: Cases = {}
    for name in (name for name in algorithms if not args.only or any(n.split(",")[0] == name for n in args.only)):
        search = {"start": 0, "trials": args.trials} if "trials" in declared(algorithms[name]) else {}
        found[name if not search else f"{name}, {args.trials} trials"] = step(name, **search)
    found["SAGE, ns_dtype bf16"] = step("SAGE", ns_dtype="bf16")
    for name, f in plain_loops.STEPS.items():
        found[name] = lambda f=f: (f(model, plain, batch), plain.zero_grad())
    erm = algorithms["ERM"](problem)
    _, gradient = erm.gradient(batch)
    matrices = [g.flatten(1) for g in gradient if g.ndim > 1]
    found |= {
        "forward-backward": lambda: erm.gradient(batch),
        "domain moments": lambda: erm.domain_moments(batch),
        "domain gradients, joint graph": lambda: plain_loops.domain_gradients(model, batch),
        "polar": lambda: polar_factors(matrices),
        "polar, bf16": lambda: polar_factors(matrices, dtype="bf16"),
        "polar, matrix by matrix": lambda: [plain_loops.newton_schulz(G) for G in matrices],
    }
    for precision in args.precisions:
        found |= in_precision(precision, Problem(model, make_optimizer, args.domains, precision), batch)
    if args.layouts:
        found |= layouts(model, batch, args)
    erm.update(batch)  # creates the optimizer's state
    for p, state in fused.state.items():  # one state for both optimizers: PyTorch's default and the package's
        plain.state[p] = state | {"step": torch.zeros(())}
    moments = sum(t.nbytes for state in fused.state.values() for t in state.values())
    return found, moments + sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def in_precision(precision: str, problem: Problem, batch: DomainBatch) -> Cases:
    """SAGE's step, with its iterations in parts where the passes are, and a pass; the guard is left out."""
    dtype = "bf16x3" if precision.startswith("bf16x") else "full"
    sage, erm = algorithms["SAGE"](problem, ns_dtype=dtype), algorithms["ERM"](problem)
    sage.survival = Survival(1.0, 1.0)

    def with_flags(run: Callable[[DomainBatch], object]) -> Callable[[], object]:
        def call() -> object:
            with tf32_allowed(precision == "tf32"):
                return run(batch)

        return call

    return {f"SAGE in {precision}": with_flags(sage.update), f"pass in {precision}": with_flags(erm.gradient)}


def layouts(model: Model, batch: DomainBatch, args: argparse.Namespace) -> Cases:
    """Forward and backward passes of two copies of the model: channels-last and compiled."""
    last, compiled = copy.deepcopy(model).to(memory_format=torch.channels_last), copy.deepcopy(model)
    compiled.forward = torch.compile(compiled.forward)
    wide = batch.map(lambda x: x.to(memory_format=torch.channels_last))

    def gradient(model: Model, batch: DomainBatch) -> Callable[[], object]:
        return partial(algorithms["ERM"](Problem(model, adam, args.domains)).gradient, batch)

    return {
        "forward-backward, channels last": gradient(last, wide),
        "forward-backward, compiled": gradient(compiled, batch),
    }


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    if device == "cpu":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    began.record()
    run()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1000


def counted(run: Callable[[], object], device: str, held: int) -> dict[str, int]:
    """FLOPs and peak bytes of one call, which also serves as warm-up."""
    counter = FlopCounterMode(display=False)
    if device == "cpu":
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled, counter:
            run()
        events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
        sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
        return {"flops": counter.get_total_flops(), "peak_bytes": held + max(accumulate(sizes), default=0)}
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with counter:
        run()
    return {"flops": counter.get_total_flops(), "peak_bytes": held + torch.cuda.max_memory_allocated() - before}


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """FLOPs, memory and times of every case, and the ratio of its median time to SAM's."""
    found, held = cases(args)
    if unknown := set(args.only or []) - set(found):
        raise SystemExit(f"error: unknown cases {sorted(unknown)}. Known: {sorted(found)}.")
    found = {name: run for name, run in found.items() if not args.only or name in args.only}
    results: dict[str, dict[str, Any]] = {name: counted(run, args.device, held) for name, run in found.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(args.rounds):
        for name in random.Random(turn).sample(list(found), len(found)):
            times[name].append(timed(found[name], args.device))
        print(f"round {turn + 1} of {args.rounds}", flush=True)
    for name, result in results.items():
        result |= {"seconds": median(times[name]), "all_seconds": times[name]}
    for result in results.values():
        result["ratio_to_SAM"] = result["seconds"] / results["SAM"]["seconds"] if "SAM" in results else None
    return results


def draw(results: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Draw the medians relative to SAM's as bars, fastest on top, and every round as a dot."""
    reference = "SAM" if "SAM" in results else next(iter(results))
    unit = results[reference]["seconds"]
    names = sorted(results, key=lambda name: -results[name]["seconds"])
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(names) + 1), layout="constrained")
    axes.barh(names, [results[n]["seconds"] / unit for n in names], color="#9ecae1")
    for i, name in enumerate(names):
        farthest = max(results[name]["all_seconds"]) / unit
        axes.text(farthest + 0.03, i, f"{results[name]['seconds'] / unit:.2f}", va="center")
        axes.plot([t / unit for t in results[name]["all_seconds"]], [i] * len(results[name]["all_seconds"]), "k.", ms=3)
    axes.axvline(1, color="grey", lw=0.8)
    axes.margins(x=0.1)
    axes.set(xlabel=f"time, in units of {reference}'s", title=title)
    figure.savefig(path)


def main() -> None:
    """Measure, print, and write the requested files."""
    args = arguments()
    torch.set_num_threads(args.threads)
    results = measure(args)
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    title = f"{args.model}, K = {args.domains}, {args.rows} rows, fp32, {where}"
    table = pd.DataFrame(results).T[["seconds", "ratio_to_SAM", "flops", "peak_bytes"]].astype(float)
    table = table.assign(TFLOP=table.pop("flops") / 1e12, peak_GB=table.pop("peak_bytes") / 1e9)
    print(f"{title}; medians of {args.rounds} rounds\n\n{table.round(3).to_string()}")
    if args.json:
        facts = {"torch": torch.__version__, "python": platform.python_version(), "where": where}
        facts |= {k: v for k, v in vars(args).items() if k not in ("json", "picture", "device")}
        args.json.write_text(json.dumps({"settings": facts, "results": results}, indent=1) + "\n")
    if args.picture:
        draw(results, title, args.picture)


if __name__ == "__main__":
    main()
