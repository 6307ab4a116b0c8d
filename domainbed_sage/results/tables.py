"""From runs to the benchmark's tables: accuracy per held-out environment, per dataset, and averages over datasets."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import footer as footers
from domainbed_sage.results import html
from domainbed_sage.results.expected import Key, environment_names, every_combination
from domainbed_sage.results.intervals import HALF_WIDTH, STANDARD_ERROR, Spread, half_width_of
from domainbed_sage.results.records import RunRecord
from domainbed_sage.results.selection import METHODS, Method

AVERAGE = "Avg"
_IDENTITY = ("dataset", "algorithm", "env", "env_name", "trial_seed")
_COLUMNS = (*_IDENTITY, "test_acc", "val_acc", "step", "hparams_seed", "settings", "run")


@dataclass(frozen=True)
class Cell:
    """One number of a table, in percent.

    Attributes:
        mean: NaN where there is no result.
        err: standard error, population standard deviation / sqrt(trials), NaN for a plain average of other cells; or
            the half-width of an interval, see `Table.spread`. NaN for one trial, which says nothing about either.
        trials: number of trials in the mean.
        expected: number of trials that should be in it.
    """

    mean: float = math.nan
    err: float = math.nan
    trials: int = 0
    expected: int = 0

    @property
    def complete(self) -> bool:
        """Whether every expected trial is in."""
        return not math.isnan(self.mean) and self.trials == self.expected

    def text(self, sign: str = "+/-", short: bool = False) -> str:
        """The cell as printed, e.g. ``74.1 +/- 0.4``, ``74.1 +/- 0.4 (2/3)`` with a trial missing, or ``X``.

        Source: DomainBed `collect_results.py`, `format_mean`; the mark of a missing trial is ours.

        Args:
            sign: between mean and `err`.
            short: mark a missing trial with ``*`` only.
        """
        if math.isnan(self.mean):
            return "X"
        spread = "" if math.isnan(self.err) else f" {sign} {self.err:.1f}"
        mark = "" if self.complete else "*" if short else f" ({self.trials}/{self.expected})"
        return f"{self.mean:.1f}{spread}{mark}"


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """One printed table.

    Attributes:
        title: the dataset, or "Averages".
        trials: the trial seeds that it averages over.
        cells: a `Cell` for each algorithm (index; by its label) and environment or dataset (columns), and the column
            "Avg".
    """

    title: str
    trials: tuple[int, ...]
    cells: pd.DataFrame

    @property
    def means(self) -> pd.DataFrame:
        """The means in percent, float; NaN where there is no result."""
        return self.cells.map(lambda cell: cell.mean).astype(float)

    def strings(self, sign: str = "+/-", short: bool = False) -> pd.DataFrame:
        """The cells as printed."""
        return self.cells.map(lambda cell: cell.text(sign, short))

    def __repr__(self) -> str:
        return f"{self.title}\n{self.strings().to_string()}"

    def _repr_html_(self) -> str:
        return html.grid(self)


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """All tables of one model selection method; a notebook shows them.

    Attributes:
        results: one row per selected number: dataset, algorithm (its label), env (index), env_name, trial_seed,
            test_acc and val_acc in [0, 1], step, hparams_seed, settings (how many hyperparameter settings were
            compared), run (name of its directory).
        grids: one per dataset.
        averages: datasets as columns.
        missing: expected results that do not exist.
        footer: sentences to print below: what is missing and what was left out.
        records: the runs that it was made of.
        spread: what the ± of its cells stands for.
    """

    method: Method
    results: pd.DataFrame
    grids: tuple[Grid, ...]
    averages: Grid
    missing: tuple[Key, ...]
    footer: tuple[str, ...]
    records: tuple[RunRecord, ...] = ()
    spread: Spread = STANDARD_ERROR

    def to_text(self) -> str:
        """For a terminal, about 80 columns wide."""
        from domainbed_sage.results import render  # which imports this file

        return render.text(self)

    def to_markdown(self) -> str:
        """Pipe tables under headings."""
        from domainbed_sage.results import render

        return render.markdown(self)

    def to_latex(self) -> str:
        """`table` environments with booktabs."""
        from domainbed_sage.results import render

        return render.latex(self)

    def to_json(self) -> str:
        """Everything at full precision, accuracies in percent."""
        from domainbed_sage.results import plain

        return strict_json.dumps(plain.table(self))

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return html.table(self)


def build(
    records: Sequence[RunRecord],
    method: str,
    *,
    expected: Iterable[Key] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    notes: Iterable[str] = (),
    begun: Mapping[Key, str] | None = None,
    interval: bool = False,
) -> Table:
    """Select, average and lay out.

    Source: DomainBed `collect_results.py`, `print_results_tables`: a cell is the mean over trials; the average of a
    dataset is, in its own table, the mean of its cells, and in the averages the mean over environments within a
    trial, then over trials; the overall average is the mean of the dataset means. Unlike DomainBed, nothing is
    averaged over a missing trial: such an average is "X".

    Args:
        records: the runs, see `load_records`.
        method: a name in `selection.METHODS`.
        expected: results that a sweep plans, in the order of its rows and datasets; by default every algorithm on
            every environment with every trial seed seen for the dataset.
        labels: environment names of each dataset whose records do not name them; by default the known datasets'.
        notes: further sentences for the footer, e.g. `Loaded.notes()`.
        begun: of missing results whose runs are not finished, how far these are, e.g. `Loaded.begun`.
        interval: give each number, averages included, the half-width of its 95% confidence interval over trials in
            place of DomainBed's standard error; see `intervals.error_of_these`.

    Raises:
        UserError: unknown method, or runs that contradict one another.
    """
    if method not in METHODS:
        raise UserError(f"Unknown model selection method {method!r}. Known: {', '.join(METHODS)}.")
    plan = None if expected is None else list(dict.fromkeys(expected))
    names = environment_names(records, plan or (), labels)
    results = _select(records, METHODS[method], names)
    keys = zip(*(results[column] for column in ("dataset", "algorithm", "env", "trial_seed")), strict=True)
    found: dict[Key, float] = dict(zip(keys, results["test_acc"], strict=True))
    plan = every_combination(records, names) if plan is None else plan
    spread = HALF_WIDTH if interval else STANDARD_ERROR
    layout = _Layout(found, (*plan, *found), names, spread)
    grids = tuple(layout.grid(dataset) for dataset in layout.datasets)
    missing = tuple(key for key in plan if key not in found)
    footer = (
        *([spread.explanation] if spread.explanation else []),
        *footers.missing(missing, records, METHODS[method], names, begun or {}),
        *footers.remarks(results, grids, spread),
        *footers.endings(records),
        *notes,
    )
    return Table(METHODS[method], results, grids, layout.averages(), missing, footer, tuple(records), spread)


class _Layout:
    """Places selected accuracies in grids."""

    def __init__(
        self,
        found: Mapping[Key, float],
        planned: Iterable[Key],
        names: Mapping[str, Sequence[str]],
        spread: Spread,
    ) -> None:
        self.found, self.names, self.spread = found, names, spread
        self.trials: defaultdict[tuple[str, str, int], set[int]] = defaultdict(set)
        for dataset, algorithm, env, trial in planned:
            self.trials[dataset, algorithm, env].add(trial)
        self.datasets = [name for name in names if any(key[0] == name for key in self.trials)]
        self.algorithms = list(dict.fromkeys(key[1] for key in self.trials))

    def grid(self, dataset: str) -> Grid:
        rows = []
        for algorithm in self.algorithms:
            cells = [self.cell(dataset, algorithm, env) for env in range(len(self.names[dataset]))]
            rows.append([*cells, self.average(cells, algorithm, [dataset])])
        seeds = set().union(*(trials for key, trials in self.trials.items() if key[0] == dataset))
        return self._frame(dataset, seeds, rows, self.names[dataset])

    def averages(self) -> Grid:
        rows = []
        for algorithm in self.algorithms:
            cells = [self._mean(*self.by_trial(dataset, algorithm)) for dataset in self.datasets]
            rows.append([*cells, self.average(cells, algorithm, self.datasets)])
        return self._frame("Averages", set().union(*self.trials.values()), rows, self.datasets)

    def _frame(self, title: str, seeds: set[int], rows: list[list[Cell]], columns: Sequence[str]) -> Grid:
        index = pd.Index(self.algorithms, name="Algorithm")
        return Grid(title, tuple(sorted(seeds)), pd.DataFrame(rows, index, [*columns, AVERAGE], dtype=object))

    def cell(self, dataset: str, algorithm: str, env: int) -> Cell:
        trials = sorted(self.trials[dataset, algorithm, env])
        keys = [(dataset, algorithm, env, trial) for trial in trials]
        return self._mean([self.found[key] for key in keys if key in self.found], len(trials))

    def average(self, cells: Sequence[Cell], algorithm: str, datasets: Sequence[str]) -> Cell:
        """The plain average of cells; with intervals also its own, from the datasets' averages within each trial."""
        plain = average(cells)
        trials = [self.by_trial(dataset, algorithm) for dataset in datasets]
        is_whole = not math.isnan(plain.mean) and all(len(values) == expected for values, expected in trials)
        if self.spread is STANDARD_ERROR or not is_whole:
            return plain
        return replace(plain, err=100 * half_width_of([values for values, _ in trials]))

    def by_trial(self, dataset: str, algorithm: str) -> tuple[list[float], int]:
        """The mean over environments in each trial that has all of them, and how many trials there should be."""
        envs = range(len(self.names[dataset]))
        trials = sorted(set().union(*(self.trials[dataset, algorithm, env] for env in envs)))
        keys = [[(dataset, algorithm, env, trial) for env in envs] for trial in trials]
        whole = [own for own in keys if all(key in self.found for key in own)]
        return [float(np.mean([self.found[key] for key in own])) for own in whole], len(trials)

    def _mean(self, values: Sequence[float], expected: int) -> Cell:
        """Mean and spread of accuracies in [0, 1], in percent."""
        if not values:
            return Cell(expected=expected)
        err = math.nan
        if len(values) > 1:
            is_error = self.spread is STANDARD_ERROR
            err = float(np.std(np.array(values) / np.sqrt(len(values)))) if is_error else half_width_of([values])
        return Cell(float(100 * np.mean(values)), 100 * err, len(values), expected)


def average(cells: Sequence[Cell]) -> Cell:
    """Plain mean of complete cells; no result where one is not complete."""
    if not all(cell.complete for cell in cells):
        return Cell()
    return Cell(sum(cell.mean for cell in cells) / len(cells))


def _select(records: Iterable[RunRecord], method: Method, names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    groups: defaultdict[Key, list[RunRecord]] = defaultdict(list)
    for run in records:
        for env in run.test_envs:
            groups[run.dataset, run.label, env, run.trial_seed].append(run)
    rows: list[tuple[Any, ...]] = []
    for (dataset, algorithm, env, trial), runs in sorted(groups.items()):
        chosen = method.select(runs)
        if chosen is not None:
            settings = len({(run.hparams_seed, run.hparams) for run in runs if run.single})
            picked = (chosen.test_acc, chosen.val_acc, chosen.step, chosen.hparams_seed, settings, chosen.run)
            rows.append((dataset, algorithm, env, names[dataset][env], trial, *picked))
    return pd.DataFrame(rows, columns=list(_COLUMNS))
