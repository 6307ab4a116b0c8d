"""Tables of runs on several tasks: the metrics of every row, and Δm against single-task networks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from domainbed_sage.core.files import write_atomically
from domainbed_sage.results import render
from domainbed_sage.results.delta_m import Baseline
from domainbed_sage.results.loaded import shortened
from domainbed_sage.results.printed_tasks import STL
from domainbed_sage.results.task_runs import LAST, TaskRun, TaskRuns

TRIVIAL = "Trivial"  # the predictor that does not look at the image
DELTA = "Δm %"
BESIDE = ("_pixels", "_present")  # end the names of figures that stand beside those of the authors
CALIBRATION = ("_brier", "_ece")  # are not in Δm


@dataclass(frozen=True)
class TaskTable:
    """The table of one dataset.

    Attributes:
        dataset: its name.
        means: mean over the trials, rows x metrics, and Δm where there is a baseline; NaN where something is missing.
        trials: number of trials behind each row.
        higher_is_better: the direction of each metric.
        notes: sentences for the footer.
    """

    dataset: str
    means: pd.DataFrame
    trials: pd.Series
    higher_is_better: Mapping[str, bool]
    notes: tuple[str, ...]


def build(found: TaskRuns) -> list[TaskTable]:
    """One table for each dataset, in the order of the runs."""
    names = dict.fromkeys(run.dataset for run in found.runs)
    return [_table(name, [run for run in found.runs if run.dataset == name], found) for name in names]


def _table(dataset: str, runs: Sequence[TaskRun], found: TaskRuns) -> TaskTable:
    by_tasks = sorted(runs, key=lambda run: -len(run.metrics))  # first those that have all, in their order
    better = {name: up for run in by_tasks for name, up in run.higher_is_better.items() if not name.endswith(BESIDE)}
    rows = dict.fromkeys(map(row_of, runs))
    of_row = {row: [run for run in runs if row_of(run) == row] for row in rows}
    numbers = _trivial(by_tasks) | {row: [run.metrics for run in of_row[row]] for row in rows}
    averages = {row: {name: _mean(found, name) for name in better} for row, found in numbers.items()}
    means = pd.DataFrame(averages.values(), index=pd.Index(numbers, name="Method"), columns=list(better))
    if STL in rows and means.loc[STL].notna().all():
        counted_names = [name for name in better if not name.endswith(CALIBRATION)]
        compared = {row: {name: own[name] for name in counted_names} for row, own in averages.items()}
        baseline = Baseline(STL, compared[STL], better)
        means[DELTA] = [baseline.delta_m(own) for own in compared.values()]
    trials = pd.Series({row: _trials(of_row.get(row, [])) for row in numbers})
    return TaskTable(dataset, means, trials, better, tuple(_notes(runs, means, found)))


def _trials(runs: Sequence[TaskRun]) -> int:
    """The trials behind a row; of single tasks, those of the task that has the fewest."""
    return min(Counter(run.only_task for run in runs).values(), default=0)


def row_of(run: TaskRun) -> str:
    """The row of the table that a run belongs to: `STL`, or its own."""
    return STL if run.only_task else run.label


def _trivial(by_tasks: Sequence[TaskRun]) -> dict[str, list[Mapping[str, float]]]:
    """The row of the trivial predictor: of the first run with the most tasks that has it."""
    there = [run.trivial for run in by_tasks if run.trivial]
    return {TRIVIAL: there[:1]} if there else {}


def _mean(found: Sequence[Mapping[str, float]], name: str) -> float:
    values = [metrics[name] for metrics in found if name in metrics]
    return sum(values) / len(values) if values else float("nan")


def _notes(runs: Sequence[TaskRun], means: pd.DataFrame, found: TaskRuns) -> list[str]:
    counts = sorted({run.evaluations for run in runs})
    over = f"the last {counts[0]}" if len(counts) == 1 else f"the last {counts[0]} to {counts[-1]}"
    each = (
        "that of the last evaluation, averaged"
        if counts == [1]
        else f"the mean over {over} evaluations (at most {LAST}), then"
    )
    notes = [f"Each number is {each} over trials; none is selected."]
    if DELTA in means:
        notes.append(f"{DELTA}: mean relative change of the metrics against {STL}; less is better.")
    else:
        notes.append(f"No Δm: it takes runs of every task alone (the hyperparameter only_task), as the row {STL}.")
    if TRIVIAL in means.index:
        notes.append(
            f"{TRIVIAL}: the same for every image: at each pixel the most frequent class, the mean depth and the mean "
            "normal of the training images; of labels, their frequencies."
        )
    notes += [f"Data: {variant}." for variant in sorted({run.variant for run in runs})]
    if missing := [f"{run.label} {run.trial_seed}" for run in found.missing if run.dataset == runs[0].dataset]:
        notes.append(f"Missing, by row and trial: {shortened(missing)}.")
    if found.unfinished:
        notes.append(f"Left out, not finished: {shortened(found.unfinished)}.")
    return notes


def text(table: TaskTable) -> str:
    """The table for a terminal, its footer below."""
    head = f"-------- Dataset: {table.dataset}, test samples"
    return "\n\n".join([f"{head}\n{render.text_blocks(_strings(table))}", *render.paragraph(table.notes)]) + "\n"


def plain(table: TaskTable) -> dict[str, Any]:
    """The table as plain values, for JSON; None where something is missing."""
    cells = table.means.astype(object).where(table.means.notna(), None)
    rows = [
        {"row": row, "trials": int(table.trials[row]), "metrics": cells.loc[row].to_dict()} for row in table.means.index
    ]
    return {
        "dataset": table.dataset,
        "higher_is_better": dict(table.higher_is_better),
        "rows": rows,
        "notes": list(table.notes),
    }


def markdown(table: TaskTable) -> str:
    """The table in Markdown, best of each column bold."""
    grid = render.markdown_grid(_strings(table), _best(table))
    return "\n\n".join([f"## {table.dataset}, test samples", grid, *render.markdown_list(table.notes)]) + "\n"


def write_all(tables: Sequence[TaskTable], folder: Path) -> list[Path]:
    """Write `tasks`.md and .csv, numbers in full, into `folder`; each complete or not at all."""
    frames = [table.means.assign(Trials=table.trials).assign(Dataset=table.dataset) for table in tables]
    csv = render.csv_text(pd.concat(frames).reset_index())
    return [
        write_atomically(folder / "tasks.md", "\n".join(map(markdown, tables))),
        write_atomically(folder / "tasks.csv", csv),
    ]


def _strings(table: TaskTable) -> pd.DataFrame:
    trials = table.trials.map(lambda number: str(number) if number else "-")  # of the trivial predictor
    strings = table.means.apply(lambda column: column.map(written)).assign(trials=trials)
    arrows = {name: "↑" if up else "↓" for name, up in table.higher_is_better.items()}
    return strings.rename(columns=lambda name: f"{name.removeprefix('test_')} {arrows.get(name, '')}".strip())


def written(number: float) -> str:
    """A number with four digits, or a hyphen for none."""
    return "-" if pd.isna(number) else f"{number:.4g}"


def _best(table: TaskTable) -> pd.DataFrame:
    """Which cells are the best of their column; of Δm that is the baseline's 0, where no row improves on it."""
    signs = pd.Series({name: 1 if table.higher_is_better.get(str(name)) else -1 for name in table.means})
    signed = table.means * signs
    best = signed.eq(signed.max()).assign(trials=False)
    best.columns = _strings(table).columns
    return best
