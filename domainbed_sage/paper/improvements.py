"""What Table 2 says of adding SAGE to a solver: how often Δm improves, as printed and by the columns."""

from collections.abc import Iterator, Mapping

from domainbed_sage.paper.derived import tables
from domainbed_sage.paper.findings import Finding
from domainbed_sage.paper.marks import OURS
from domainbed_sage.results.delta_m import half_unit
from domainbed_sage.results.printed_tasks import STL, Printed

HOW_COUNT = (
    "Δm of each SAGE row against that of the row of its base solver, on both datasets: as printed, and recomputed from "
    "the printed columns of both rows."
)
HOW_STRONGEST = "The row with the smallest Δm, as printed and recomputed from the printed columns."
HOW_BASELINE = (
    "Linear programs in 1/B_i > 0, one for each metric i, with half a unit of rounding on every column and on Δm: are "
    "there baselines B that give all six printed Δm, and how far from the printed STL is the nearest (the largest "
    "relative change of a 1/B_i, made as small as possible)?"
)


def table2() -> list[Printed]:
    """Both halves of Table 2."""
    return [table for section, table in tables() if section == "Table 2"]


def pairs(values: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """For each SAGE row the value of its base solver's row, and its own."""
    return {row: (values[row.removeprefix(OURS)], own) for row, own in values.items() if row.startswith(OURS)}


def both(table: Printed) -> tuple[dict[str, float], dict[str, float]]:
    """Δm of all rows as printed, and as the columns have it."""
    printed = {row: float(text) for row, text in table.delta_m.items()}
    return printed, {row: implied.delta_m for row, implied in table.implied().items()}


def findings() -> Iterator[Finding]:
    """The counts of improved cells, the strongest rows, and whether another baseline explains the SAGE rows."""
    cells = [[pairs(values) for values in both(table)] for table in table2()]
    printed, columns = (
        {(at, row): pair for at, own in enumerate(cells) for row, pair in own[which].items()} for which in (0, 1)
    )
    yield _counted(
        "all six base solvers", "in almost all cases (Section 6)", printed, columns, "SAMO-", both_kinds=True
    )
    yield _counted(
        "LS, MGDA and FairGrad", "consistent gains (Section 5.2)", printed, columns, "SAMO-", both_kinds=False
    )
    for table in table2():
        yield _strongest(table)
    for table in table2():
        yield _baseline(table)


def _counted(
    who: str,
    claim: str,
    printed: Mapping[tuple[int, str], tuple[float, float]],
    columns: Mapping[tuple[int, str], tuple[float, float]],
    other: str,
    *,
    both_kinds: bool,
) -> Finding:
    of = [key for key in printed if both_kinds or not key[1].removeprefix(OURS).startswith(other)]
    as_printed, by_columns = (sum(own[key][1] < own[key][0] for key in of) for own in (printed, columns))
    return Finding(
        f"Gains in Table 2, {who}",
        f"adding SAGE improves Δm: {claim}",
        f"{as_printed} of {len(of)} cells improve as printed, and {by_columns} of {len(of)} by the columns",
        "holds" if as_printed == len(of) == by_columns else "holds in part",
        HOW_COUNT,
        {"cells": len(of), "printed": as_printed, "columns": by_columns},
    )


def _strongest(table: Printed) -> Finding:
    printed, columns = both(table)
    first, second = (min(values, key=values.__getitem__) for values in (printed, columns))
    return Finding(
        f"Gains in Table 2, {table.dataset}",
        "SAMO-FairGrad remains the strongest on Δm (Section 5.2)",
        f"smallest as printed: {first} ({table.delta_m[first]}); by the columns: {second} ({columns[second]:.2f}), "
        f"where SAMO-FairGrad has {columns['SAMO-FairGrad']:.2f}",
        "holds" if {first, second} == {"SAMO-FairGrad"} else "holds in part",
        HOW_STRONGEST,
        {"printed": printed[first], "columns": columns[second]},
    )


def _baseline(table: Printed) -> Finding:
    change = nearest_baseline(table, [row for row in table.delta_m if row.startswith(OURS)])
    found = (
        "no baseline gives them" if change is None else f"the nearest baseline that does is {100 * change:.0f}% away"
    )
    return Finding(
        f"Gains in Table 2, {table.dataset}, Δm of the six SAGE rows",
        "relative to the printed STL row",
        f"they do not follow from it; {found}",
        "cannot follow",
        HOW_BASELINE,
        {} if change is None else {"change": change},
    )


def nearest_baseline(table: Printed, chosen: list[str]) -> float | None:
    """The smallest largest |B_i/B'_i - 1| over baselines B' that explain the printed Δm of the chosen rows.

    With x_i = 1/B'_i, Δm = 100/n Σ s_i (M_i x_i - 1) is linear, and the range of M_i x_i over the rounding of M_i is
    between two linear functions. None where no x > 0 does.
    """
    import numpy as np
    from scipy.optimize import linprog

    names, better, n = list(table.cells[STL]), table.baseline.higher_is_better, len(table.cells[STL])
    sign = np.array([-1.0 if better[name] else 1.0 for name in names])
    rows, bounds = [], []
    for row in chosen:
        texts = [table.cells[row][name] for name in names]
        M, half = np.array([float(text) for text in texts]), np.array([half_unit(text) for text in texts])
        total = n * float(table.delta_m[row]) / 100 + sign.sum()
        off = n * half_unit(table.delta_m[row]) / 100
        rows += [[*(sign * M - half), 0.0], [*-(sign * M + half), 0.0]]
        bounds += [total + off, -(total - off)]
    for at, name in enumerate(names):  # |B_i x_i - 1| <= t, the last unknown
        base = float(table.cells[STL][name]) * np.eye(n)[at]
        rows += [[*base, -1.0], [*-base, -1.0]]
        bounds += [1.0, -1.0]
    found = linprog([0.0] * n + [1.0], rows, bounds, bounds=[(1e-12, None)] * n + [(0, None)])
    return None if found.fun is None else float(found.fun)  # the program is infeasible
