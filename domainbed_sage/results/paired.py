"""Differences between rows of a table, paired by dataset, held-out environment and trial: all rows share the splits."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from domainbed_sage.results.records import FloatArray, IntArray
from domainbed_sage.results.tables import Table


@dataclass(frozen=True, eq=False)
class Paired:
    """Differences of one row to another, in points, of N triples of dataset, environment and trial that either has.

    Attributes:
        datasets: all D datasets, by name.
        trials: all T trial seeds.
        places: of each triple: its dataset and its trial, as places among these, and its environment, [N, 3].
        points: NaN where one of the two has no result, [N].
    """

    datasets: tuple[str, ...]
    trials: tuple[int, ...]
    places: IntArray
    points: FloatArray

    @property
    def is_common(self) -> npt.NDArray[np.bool_]:
        """Which triples both have, [N]."""
        return ~np.isnan(self.points)

    @cached_property
    def by_trial(self) -> FloatArray:
        """Mean over the common environments of each dataset in each trial, [D, T]; NaN where there are none."""
        return self._means(self.places[:, 0], self.places[:, 1], (len(self.datasets), len(self.trials)))

    @cached_property
    def by_environment(self) -> FloatArray:
        """Mean over the common trials of each environment of each dataset, [D, most environments]; NaN as above."""
        envs = int(self.places[:, 2].max(initial=-1)) + 1
        return self._means(self.places[:, 0], self.places[:, 2], (len(self.datasets), envs))

    def _means(self, rows: IntArray, columns: IntArray, shape: tuple[int, int]) -> FloatArray:
        at = (rows * shape[1] + columns)[self.is_common]
        sums, counts = (np.bincount(at, what, shape[0] * shape[1]) for what in (self.points[self.is_common], None))
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(shape)


class Pairs:
    """The accuracies of a table by triple and row, from which any two rows are paired."""

    def __init__(self, table: Table) -> None:
        results = table.results
        of_dataset, datasets = pd.factorize(results["dataset"], sort=True)
        of_trial, trials = pd.factorize(results["trial_seed"], sort=True)
        of_row, names = pd.factorize(results["algorithm"])
        self.datasets, self.trials = tuple(map(str, datasets)), tuple(map(int, trials))
        self.rows = {str(name): at for at, name in enumerate(names)}
        places = np.stack([of_dataset, of_trial, results["env"].to_numpy(np.int64)], axis=1)
        self.places, triples = np.unique(places, axis=0, return_inverse=True)
        at = of_row, triples.reshape(-1)
        self.accuracies = np.full((len(names), len(self.places)), np.nan)  # [rows, triples], percent
        self.accuracies[at] = 100 * results["test_acc"].to_numpy(np.float64)
        self.there = np.zeros(self.accuracies.shape, bool)
        self.there[at] = True

    def of(self, row: str, reference: str) -> Paired:
        """The differences of a row to another."""
        ours, theirs = self.rows[row], self.rows[reference]
        either = self.there[ours] | self.there[theirs]
        points = (self.accuracies[ours] - self.accuracies[theirs])[either]
        return Paired(self.datasets, self.trials, self.places[either], points)
