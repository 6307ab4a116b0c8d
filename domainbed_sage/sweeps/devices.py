"""Hours of a device that a sweep takes in each precision, from its FLOPs and the rates of the maker's data sheet.

A rate is what the arithmetic units do at most, in dense products; what a training step reaches of it is the efficiency,
which depends on network, batch size and software, and differs between precisions: the faster the products, the more
counts what is no product (norms, activations, memory). One efficiency for all is therefore kinder to the fast ones.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.geometry.products import Precision
from domainbed_sage.sweeps.cost import Work, step_work
from domainbed_sage.sweeps.estimate import FORWARD_SHARE, cost, method

COMPARED: tuple[Precision, ...] = ("fp32", "tf32", "bf16x3", "bf16")
SLICES = 7  # of a device that can be divided
_MIG = re.compile(r"(?P<device>.+)-(?P<slices>[1-7])g")


@dataclass(frozen=True)
class Device:
    """A GPU, by its data sheet; a rate is None where it lacks the arithmetic.

    Attributes:
        name: as it is called.
        fp32: TFLOP/s of fp32 outside tensor cores.
        tf32: of tensor cores in TF32, dense.
        bf16: of tensor cores in bf16 with fp32 sums, dense.
        divisible: whether it can be divided into MIG slices.
    """

    name: str
    fp32: float
    tf32: float | None = None
    bf16: float | None = None
    divisible: bool = False

    def slice(self, slices: int) -> "Device":
        """A MIG slice with so many sevenths of the arithmetic units."""
        part = slices / SLICES
        tf32, bf16 = (rate and rate * part for rate in (self.tf32, self.bf16))
        return Device(f"{self.name} MIG {slices}g", self.fp32 * part, tf32, bf16)


DEVICES = {
    "v100": Device("NVIDIA V100 SXM2", 15.7),
    "a100": Device("NVIDIA A100", 19.5, 156, 312, divisible=True),
    "h100": Device("NVIDIA H100 SXM", 67, 495, 989, divisible=True),
    "h200": Device("NVIDIA H200 SXM", 67, 495, 989, divisible=True),
    "l40s": Device("NVIDIA L40S", 91.6, 183, 362),
}


def device(name: str) -> Device:
    """The device of this name, e.g. ``a100``, or a slice of one, e.g. ``a100-3g``.

    Raises:
        UserError: it is not known, or not divisible.
    """
    found = _MIG.fullmatch(name)
    whole = DEVICES.get(found["device"] if found else name)
    if whole is None or (found and not whole.divisible):
        divisible = ", ".join(f"{known}-3g" for known, d in DEVICES.items() if d.divisible)
        raise UserError(
            f"--device should be one of {', '.join(DEVICES)}, or a MIG slice of 1 to 7 sevenths such as {divisible}. "
            f"Found {name!r}. For another device, measure a pass on it: --measure, or --pass_time."
        )
    return whole.slice(int(found["slices"])) if found else whole


def seconds(work: Work, device: Device, precision: Precision) -> float:
    """Time of some work at the full rates; NaN where the device lacks the arithmetic."""
    full = device.tf32 if precision == "tf32" else device.fp32
    if full is None or (work.low and device.bf16 is None):
        return float("nan")
    return work.full / full / 1e12 + (work.low / device.bf16 / 1e12 if device.bf16 else 0.0)


def hours(runs: Sequence[RunConfig], device: Device, efficiency: float) -> pd.DataFrame:
    """Hours of the device per dataset and algorithm, with totals, in each of `COMPARED`.

    Whether a precision keeps a method's perturbation is for the guard to say, at the start of a run.
    """
    rows = []
    for run in runs:
        evaluated = cost(run)["images_evaluated"]
        row: dict[str, float | str] = {"dataset": run.dataset, "algorithm": method(run)}
        for precision in COMPARED:
            arithmetic: Precision = "fp32" if precision == "tf32" else precision  # the same products
            step, image = step_work(run, arithmetic)
            taken = run.steps * seconds(step, device, precision)
            taken += FORWARD_SHARE * evaluated * seconds(image, device, precision)
            row[precision] = taken / efficiency / 3600
        rows.append(row)
    table = pd.DataFrame(rows).groupby(["dataset", "algorithm"], sort=False).sum(min_count=1)
    table.loc[("all", "all"), :] = table.sum(min_count=1)
    return table


def described(runs: Sequence[RunConfig], device: Device, efficiency: float) -> str:
    """The table of `hours`, and what it rests on."""
    table = hours(runs, device, efficiency)
    shown = table.map(lambda n: "-" if pd.isna(n) else f"{n:,.3g}" if n < 100 else f"{n:,.0f}").to_string()
    rates = {"fp32": device.fp32, "TF32": device.tf32, "bf16": device.bf16}
    sheet = ", ".join(f"{name} {rate:.4g}" for name, rate in rates.items() if rate)
    return (
        f"Hours of one {device.name} at {100 * efficiency:.3g} % of its data sheet's rates ({sheet} TFLOP/s), by "
        f"precision:\n{shown}\nbf16x3: three bf16 products for one of a layer, attention's inner products in fp32. A "
        f"precision that loses a method's perturbation is refused at the start of a run; none of these was measured on "
        f"a GPU. Data loading and checkpoints are not in them."
    )
