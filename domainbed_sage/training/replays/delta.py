"""Recorded Δm of every row of the SAGE paper's Table 2."""

from collections.abc import Mapping
from typing import Any

from domainbed_sage.results.printed_tasks import scenes
from domainbed_sage.training.replays.measured import Measured, largest

CLOSE = 1e-9  # points of Δm
COLUMNS = {"NYUv2": "nyu_delta_m", "Cityscapes": "cs_delta_m"}


def measure(info: Mapping[str, Any]) -> list[Measured]:
    """What our Δm makes of the printed columns, beside what the authors' code made of them."""
    found = []
    for table in scenes()[: len(COLUMNS)]:
        recorded = {row["method"]: row[COLUMNS[table.dataset]] for row in info["rows"]}
        ours = {
            row: table.baseline.delta_m({name: float(text) for name, text in cells.items()})
            for row, cells in table.cells.items()
        }
        off = [abs(ours[row] - value) for row, value in recorded.items()]
        found.append(largest(f"Δm of Table 2, {table.dataset}, points", off, CLOSE))
    return found
