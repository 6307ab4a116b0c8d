"""F-MTL's printed tables beside those of scenes: two ways of aggregation, MultiMNIST with its calibration, CelebA."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from domainbed_sage.results.printed_tasks import FMTL, STL, Printed, read, rows, scenes

TASKS = {"top_left": "left", "bottom_right": "right", "average": "mean"}
CALIBRATION = (("fmtl_table6_brier", 6, "brier"), ("fmtl_table7_ece", 7, "ece"))


def aggregation() -> Printed:
    """Table 5, of Cityscapes, with the row of single-task networks of Table 3, to which its Δm is relative."""
    table = read("fmtl_table5_aggregation", f"Table 5 {FMTL}", "Cityscapes")
    (scene,) = (one for one in scenes() if one.title.startswith("Table 3"))
    return replace(table, cells={STL: scene.cells[STL], **table.cells})


def digits() -> Iterator[Printed]:
    """Tables 1, 6 and 7, their columns of MultiMNIST: accuracy in percent, Brier score, calibration error."""
    cells = {
        row["method"]: {f"test_{ours}_accuracy": _with_deviation(row, f"mnist_{theirs}") for theirs, ours in T1.items()}
        for row in rows("fmtl_table1_multimnist")
    }
    yield Printed(f"Table 1 {FMTL}", "MultiMNISTPareto", cells, {})
    for name, number, metric in CALIBRATION:
        found: dict[str, dict[str, str]] = {}
        for row in rows(name):
            found.setdefault(row["method"], {})[f"test_{TASKS[row['task']]}_{metric}"] = row["MultiMNIST"]
        yield Printed(f"Table {number} {FMTL}", "MultiMNISTPareto", found, {})


T1 = {"t1": "left", "t2": "right", "avg": "mean"}


def faces() -> Printed:
    """Table 2: the mean error of CelebA's 40 attributes, percent."""
    cells = {row["method"]: {"test_mean_error": row["avg_error_pct"]} for row in rows("fmtl_table2_celeba")}
    return Printed(f"Table 2 {FMTL}", "CelebA", cells, {})


def _with_deviation(row: Mapping[str, str], column: str) -> str:
    return f"{row[column]} ± {row[f'{column}_std']}"
