"""How far other test images would move a difference: a paired bootstrap over the images of every environment."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import correctness
from domainbed_sage.results.correctness import Correct
from domainbed_sage.results.intervals import CONFIDENCE
from domainbed_sage.results.records import FloatArray

RESAMPLES = 10_000
SEED = 0
_UNTESTED = 2  # beside the differences -1, 0 and 1 of an image
Triple = tuple[str, int, int]  # dataset, environment, trial seed


class Chosen(NamedTuple):
    """The number of a table: the run it is from, the training step, and the accuracy in [0, 1]."""

    run: str
    step: int
    accuracy: float


class Resampled(NamedTuple):
    """Standard error and percentile interval of a difference, points; NaN if there are none."""

    se: float = math.nan
    low: float = math.nan
    high: float = math.nan


class Unusable(Exception):  # noqa: N818 - a finding about files
    """The files of a run do not allow the bootstrap; the message says why."""


class Images:
    """The correct images of runs, read from their folders once.

    Args:
        folders: results folders to look for the runs in.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._read: dict[str, dict[int, Correct]] = {}

    def interval(self, ours: Mapping[Triple, Chosen], theirs: Mapping[Triple, Chosen]) -> tuple[Resampled, str]:
        """The interval of the mean difference over common triples, or why there is none.

        The reason is empty, too, if no run has kept its images. Trials of an environment share most of its images:
        all of them are drawn together.
        """
        triples = sorted(ours.keys() & theirs.keys())
        runs = {chosen.run for triple in triples for chosen in (ours[triple], theirs[triple])}
        without = sorted(run for run in runs if self._path(run) is None)
        if len(without) == len(runs):
            return Resampled(), ""
        if without:
            return Resampled(), f"{len(without)} of {len(runs)} runs have no {correctness.FILE}, e.g. {without[0]}"
        try:
            environments = self._environments(triples, ours, theirs)
        except (Unusable, UserError) as error:
            return Resampled(), str(error).rstrip(".")
        drawn = resampled(environments)
        if np.isnan(drawn).any():
            return Resampled(), "there are too few images to draw from"
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Resampled(float(drawn.std(ddof=1)), float(low), float(high)), ""

    def _path(self, run: str) -> Path | None:
        paths = (folder / run / correctness.FILE for folder in self.folders)
        return next((path for path in paths if path.is_file()), None)

    def _environments(
        self, triples: Sequence[Triple], ours: Mapping[Triple, Chosen], theirs: Mapping[Triple, Chosen]
    ) -> "list[Sampled]":
        weights = _weights(triples)
        pairs: defaultdict[tuple[str, int], list[tuple[Triple, Correct, npt.NDArray[np.int8]]]] = defaultdict(list)
        for triple in triples:
            dataset, env, _ = triple
            mine, other = (self._of(chosen[triple], env) for chosen in (ours, theirs))
            known = [correct for _, correct, _ in pairs[dataset, env]] + [mine]
            if any(other.images != correct.images for correct in known) or (mine.tested != other.tested).any():
                raise Unusable(f"{ours[triple].run} and {theirs[triple].run} were tested on different images")
            difference = mine.at[ours[triple].step].astype(np.int8) - other.at[theirs[triple].step]
            pairs[dataset, env].append((triple, mine, difference))
        return [
            Sampled(
                np.array([weights[triple] for triple, *_ in own]),
                np.array([np.where(mine.tested, difference, _UNTESTED) for _, mine, difference in own], np.int8),
            )
            for own in pairs.values()
        ]

    def _of(self, chosen: Chosen, env: int) -> Correct:
        """The environment's images of a run, which must give the accuracy in its record."""
        path = self._path(chosen.run)
        assert path is not None
        if chosen.run not in self._read:
            self._read[chosen.run] = correctness.read(path)
        correct = self._read[chosen.run].get(env)
        if correct is None or chosen.step not in correct.at:
            raise Unusable(f"{path} has no images of step {chosen.step}, which is selected")
        if correct.accuracy(chosen.step) != chosen.accuracy:
            raise Unusable(
                f"{path} gives accuracy {correct.accuracy(chosen.step):.6f} at step {chosen.step}, and the run's "
                f"record {chosen.accuracy:.6f}"
            )
        return correct


class Sampled(NamedTuple):
    """One environment of N images, in T trials.

    Attributes:
        weights: of each trial in the mean difference, [T].
        states: of each image in each trial, [T, N]: the difference -1, 0 or 1, or 2 where it is not tested.
    """

    weights: FloatArray
    states: npt.NDArray[np.int8]


def resampled(environments: Sequence[Sampled]) -> FloatArray:
    """Mean differences on other images, drawn with replacement from those of each environment, [resamples], points.

    Images with equal states in all trials are interchangeable, so the numbers of each kind are drawn. NaN where a draw
    leaves a trial without a tested image.
    """
    rng, total = np.random.default_rng(SEED), np.zeros(RESAMPLES)
    for weights, states in environments:
        kinds, counts = np.unique(states.T, axis=0, return_counts=True)  # [kinds, T], [kinds]
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES).astype(np.float64)
        is_tested = kinds != _UNTESTED
        sizes = drawn @ is_tested.astype(np.float64)  # [resamples, T]
        sizes[sizes == 0] = np.nan
        total += 100 * (drawn @ np.where(is_tested, kinds, 0).astype(np.float64) / sizes) @ weights
    return total


def _weights(triples: Sequence[Triple]) -> dict[Triple, float]:
    """Of each triple in the mean over datasets of the mean over trials of the mean over environments."""
    envs: defaultdict[tuple[str, int], int] = defaultdict(int)
    for dataset, _, trial in triples:
        envs[dataset, trial] += 1
    trials: defaultdict[str, int] = defaultdict(int)
    for dataset, _ in envs:
        trials[dataset] += 1
    return {(d, e, t): 1 / (len(trials) * trials[d] * envs[d, t]) for d, e, t in triples}
