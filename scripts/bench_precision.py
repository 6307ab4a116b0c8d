"""What a precision does to a gradient and to its change under SAGE's perturbation, on a model of the suite.

    python scripts/bench_precision.py [--model clip_vit_b16] [--rows 1] [--rho 1e-6] [--reference fp64] [--json FILE]

g is the gradient of the mean cross-entropy of random images, ε SAGE's perturbation at radius ρ, made of g in fp32, and
d = g(θ + ε) - g(θ) what SAGE changes in a gradient. For every precision: the relative error of g, and the cosine and
relative size of d, to those of the reference, which is fp64, or fp32 where fp64 takes too long. Arithmetic is emulated
on a CPU (see `domainbed_sage/geometry/products.py`), so the numbers are a GPU's up to the order of sums, and the times
mean nothing.
"""

import argparse
import copy
import json
import platform
from typing import Any

import bench_arguments
import pandas as pd
import torch

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import Survival, perturbed, spectral_ascent
from domainbed_sage.geometry.products import Precision
from domainbed_sage.geometry.vectors import Vector, norm
from domainbed_sage.models import Model, models
from domainbed_sage.models.optimizers import adam


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = bench_arguments.parser(__doc__)
    parser.add_argument("--domains", type=int, default=3, help="K")
    parser.add_argument("--rows", type=int, default=1, help="images per domain")
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--rho", type=float, nargs="+", default=[1e-6])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16x6", "bf16x3", "tf32", "bf16"])
    parser.add_argument("--reference", default="fp64", choices=("fp64", "fp32"))
    return parser.parse_args()


def gradient(model: Model, batch: DomainBatch, precision: Precision) -> Vector:
    """The gradient of the batch's loss at the model's weights."""
    if precision == "fp64":
        batch = batch.map(lambda x: x.double())
    return algorithms["ERM"](Problem(model, adam, len(batch.sizes), precision)).gradient(batch)[1]


def pair(model: Model, batch: DomainBatch, precision: Precision, epsilon: Vector) -> tuple[Vector, Vector]:
    """The gradients at θ and at θ + ε."""
    before = gradient(model, batch, precision)
    params = tuple(model.parameters())
    with perturbed(params, tuple(e.to(p.dtype, copy=True) for e, p in zip(epsilon, params, strict=True))):
        return before, gradient(model, batch, precision)


def difference(a: Vector, b: Vector) -> Vector:
    """a - b, in double precision."""
    return tuple(s.double() - t.double() for s, t in zip(a, b, strict=True))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each radius and precision."""
    torch.manual_seed(0)
    model = models[args.model].build([f"class {i}" for i in range(args.classes)], **args.hparams)
    side, n = model.image.size, args.rows * args.domains
    x, y = torch.rand(n, 3, side, side) * 2 - 1, torch.arange(n) % args.classes
    batch = DomainBatch(x, y, (args.rows,) * args.domains)
    double = copy.deepcopy(model).double() if args.reference == "fp64" else model
    rows = []
    for rho in args.rho:
        clean = gradient(model, batch, "fp32")
        epsilon = spectral_ascent(tuple(model.parameters()), clean, rho)
        true = pair(double, batch, args.reference, epsilon)
        size = norm(difference(*true)) / norm(true[0])
        for precision in args.precisions:
            found = pair(model, batch, precision, epsilon)
            error = norm(difference(found[0], true[0])) / norm(true[0])
            kept = Survival.of(difference(found[1], found[0]), difference(true[1], true[0]))
            rows.append({"rho": rho, "d_to_g": float(size), "precision": precision, "gradient_error": float(error)})
            rows[-1] |= {"cosine_of_d": kept.cosine, "size_of_d": kept.size}
            print(pd.Series(rows[-1]).to_dict(), flush=True)
    return rows


def main() -> None:
    """Measure, print, and write the requested file."""
    args = arguments()
    torch.set_num_threads(args.threads)
    rows = measure(args)
    print(pd.DataFrame(rows).to_string(index=False))
    if args.json:
        facts = {"torch": torch.__version__, "python": platform.python_version(), "where": "CPU, emulated"}
        facts |= {k: v for k, v in vars(args).items() if k != "json"}
        args.json.write_text(json.dumps({"settings": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
