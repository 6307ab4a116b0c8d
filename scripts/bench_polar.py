"""Accuracy and cost of different ways to compute SAGE's polar factors, on real gradients.

    python scripts/bench_polar.py [--model clip_vit_b16] [--hparams JSON] [--rounds 3] [--json FILE]

The gradient of a model is computed on one minibatch of emojis, resized to the model's input size; for every distinct
shape among its matrices, the middle layer with that shape is used. Reported per method: FLOPs of the matrix products;
median time, with the methods taking turns; the relative distance (Frobenius norm) to the polar factor U Vᵀ, restricted
to the rank that is visible in single precision; the relative distance to the same iteration in double precision,
applied to the matrix itself; and the smallest, median and largest of the resulting singular values that should be 1.
"Muon's code" is the plain iteration, in float32 and in bf16.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import bench_arguments
import pandas as pd
import plain_loops
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from domainbed_sage.data.specs import datasets
from domainbed_sage.data.transforms import DataOptions, eval_transform, normalize
from domainbed_sage.geometry import polar
from domainbed_sage.geometry.polar import polar_factor
from domainbed_sage.models import models

WAYS: dict[str, dict[str, Any]] = {
    "quintic, 5": {},
    "quintic, 5, bf16x3": {"dtype": "bf16x3"},
    "quintic, 5, bf16": {"dtype": "bf16"},
    "polar_express, 5": {"method": "polar_express"},
    "polar_express, 5, bf16x3": {"method": "polar_express", "dtype": "bf16x3"},
    "polar_express, 5, bf16": {"method": "polar_express", "dtype": "bf16"},
    "polar_express, 8": {"method": "polar_express", "steps": 8},
    "cubic, 5": {"method": "cubic"},
    "cubic, 30": {"method": "cubic", "steps": 30},
    "svd_rank": {"method": "svd_rank"},
}


def gradients(model_name: str, hparams: dict[str, Any], rows: int, device: str) -> dict[str, Tensor]:
    """Gradient matrix of the middle layer of each shape, keyed by the layer's name."""
    dataset = datasets["EmojiStyles"].load(None)
    torch.manual_seed(0)
    model = models[model_name].build(dataset.classes, **hparams).to(device)
    resize, env = eval_transform(DataOptions(), model.image), dataset.environments[0]
    chosen = range(0, len(env), len(env) // rows)[:rows]
    x = normalize(model.image)(torch.stack([resize(env.image(i)) for i in chosen]).to(device))
    F.cross_entropy(model(x), torch.tensor(env.labels[list(chosen)], device=device)).backward()
    shapes: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}
    for name, p in model.named_parameters():
        if p.ndim > 1 and p.grad is not None:
            G = p.grad.flatten(1)
            shapes.setdefault((G.shape[0], G.shape[1]), []).append((name, G))
    return dict(layers[len(layers) // 2] for layers in shapes.values())


def literally(G: Tensor, method: str = "quintic", steps: int = 5, **_: Any) -> Tensor:
    """The iteration on the matrix itself in double precision."""
    aspect, polar.GRAM_ASPECT = polar.GRAM_ASPECT, 10**9
    try:
        return polar_factor(G.double(), method, steps)  # type: ignore[arg-type]
    finally:
        polar.GRAM_ASPECT = aspect


def distance(Q: Tensor, other: Tensor) -> float:
    """‖Q - other‖ / ‖other‖ in Frobenius norm."""
    return float(torch.linalg.matrix_norm(Q.double() - other) / torch.linalg.matrix_norm(other))


def seconds(run: Callable[[], Tensor], device: str) -> float:
    """Time of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def rows_of(name: str, G: Tensor, rounds: int, device: str) -> list[dict[str, Any]]:
    """One row of the table per method, for one gradient."""
    ways: dict[str, Callable[[], Tensor]] = {way: partial(polar_factor, G, **given) for way, given in WAYS.items()}
    ways["Muon's code"] = lambda: plain_loops.newton_schulz(G)
    ways["Muon's code, bf16"] = lambda: plain_loops.newton_schulz(G.bfloat16()).to(G.dtype)
    taken = {way: [seconds(run, device) for _ in range(1)] for way, run in ways.items()}  # warm up
    for turn in range(rounds):
        for way, run in ways.items():
            taken[way] = [*(taken[way] if turn else []), seconds(run, device)]
    U, scale, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    rank = int((scale > max(G.shape) * torch.finfo(G.dtype).eps * scale[0]).sum())
    exact = U[:, :rank] @ Vh[:rank]
    found = []
    for way, run in ways.items():
        given = WAYS.get(way, {})
        with FlopCounterMode(display=False) as counter:
            Q = run()
        sigma = torch.linalg.svdvals(Q.double())[:rank]
        found.append(
            {"layer": name, "shape": "x".join(map(str, G.shape)), "rank": rank, "way": way}
            | {"GFLOP": counter.get_total_flops() / 1e9, "ms": 1e3 * median(taken[way])}
            | {"to_UV": distance(Q, exact), "to_own": distance(Q, exact if "svd" in way else literally(G, **given))}
            | {f"sigma_{q}": float(getattr(sigma, q)()) for q in ("min", "median", "max")}
        )
    return found


def main() -> None:
    """Measure, print, and write the requested files."""
    parser = bench_arguments.parser(__doc__)
    parser.add_argument("--rows", type=int, default=12, help="images in the minibatch")
    parser.add_argument("--largest", type=int, default=4, help="use only the shapes with the most elements")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layers = gradients(args.model, args.hparams, args.rows, args.device)
    largest = sorted(layers, key=lambda name: -layers[name].numel())[: args.largest]
    rows = [row for name in largest for row in rows_of(name, layers[name], args.rounds, args.device)]
    for _, table in pd.DataFrame(rows).groupby(["layer", "shape", "rank"], sort=False):
        print("\n{}, {}, rank {}".format(*table.iloc[0, :3]))
        print(table.iloc[:, 3:].to_string(index=False, float_format="{:.3g}".format))
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k != "json"} | {"torch": torch.__version__}
        args.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
