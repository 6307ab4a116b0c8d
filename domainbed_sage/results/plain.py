"""Tables as plain data, for JSON and for the report's page: accuracies in percent, at full precision."""

from collections.abc import Mapping
from typing import Any

from domainbed_sage.results import render
from domainbed_sage.results.paper import Comparison, frame
from domainbed_sage.results.tables import Cell, Grid, Table

Data = dict[str, Any]


def grid(shown: Grid) -> Data:
    """One table: its columns, and a row for each method."""
    best = render.best(shown)
    rows = [
        {
            "method": str(method),
            "cells": [_cell(cell, mark) for cell, mark in zip(cells, best.loc[method], strict=True)],
        }
        for method, *cells in shown.cells.itertuples()
    ]
    return {"title": shown.title, "columns": [str(name) for name in shown.cells.columns], "rows": rows}


def _cell(cell: Cell, best: bool) -> Data:
    return {"mean": cell.mean, "err": cell.err, "trials": cell.trials, "expected": cell.expected, "best": bool(best)}


def table(shown: Table) -> Data:
    """All tables of one selection method, the number behind each trial of a cell, what is missing, and the footer.

    `spread` says what `err` is. An environment's place among those of its dataset is `env`, as in `table.csv`.
    """
    return {
        "selection": shown.method.name,
        "title": shown.method.title,
        "spread": shown.spread.column,
        "datasets": [grid(own) for own in shown.grids],
        "averages": grid(shown.averages),
        "results": [_result(row) for row in shown.results.to_dict("records")],
        "missing": [dict(zip(("dataset", "method", "env", "trial"), key, strict=True)) for key in shown.missing],
        "notes": shown.footer,
    }


def _result(row: Mapping[Any, Any]) -> Data:
    return {
        "dataset": row["dataset"],
        "method": row["algorithm"],
        "env": row["env"],
        "held_out": row["env_name"],
        "trial": row["trial_seed"],
        "accuracy": 100 * row["test_acc"],
        "validation": 100 * row["val_acc"],
        **{name: row[name] for name in ("step", "hparams_seed", "settings", "run")},
    }


def paper(comparison: Comparison) -> Data:
    """Our averages beside the printed ones, a row for each method and dataset, and the notes."""
    return {"rows": frame(comparison).to_dict("records"), "notes": comparison.notes}
