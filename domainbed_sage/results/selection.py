"""Choose a checkpoint and a hyperparameter setting, then report its accuracy on the held-out environment.

The three methods of DomainBed (`model_selection.py`), and the last step, which is not among them. Each takes the runs
of one (dataset, algorithm, held-out environment, trial), those that hold out one environment and those that hold out a
second one beside it.
The number reported is always the accuracy on the held-out environment's larger ("in") split.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from domainbed_sage.core.errors import UserError
from domainbed_sage.results.records import FloatArray, RunRecord


@dataclass(frozen=True)
class Selected:
    """The chosen checkpoint: accuracies in [0, 1], training step, the setting's hparams_seed, and the run's name."""

    test_acc: float
    val_acc: float
    step: int
    hparams_seed: int
    run: str = field(default="", compare=False)


@dataclass(frozen=True)
class Method:
    """A model selection method.

    Attributes:
        name: what the command line calls it.
        title: what DomainBed prints.
        needs: what it takes to get a number, for the explanation of a missing one.
        select: the method itself; None where the runs do not suffice.
    """

    name: str
    title: str
    needs: str
    select: Callable[[Sequence[RunRecord]], Selected | None]


class Candidate(NamedTuple):
    """A checkpoint and its validation accuracy."""

    run: RunRecord
    at: int  # row of the run's arrays
    val_acc: float


def training_domain(runs: Sequence[RunRecord]) -> Selected | None:
    """Training-domain validation: highest mean out-split accuracy over the source environments.

    Over all steps of all settings; on ties the first step of a run and the highest hparams_seed. An evaluation
    with a NaN among its source accuracies is never chosen.

    Source: DomainBed `IIDAccuracySelectionMethod`.

    Raises:
        UserError: the held-out environment was not evaluated at the chosen step; names the run.
    """
    return _reported(best_by_source_validation(runs))


def best_by_source_validation(runs: Sequence[RunRecord]) -> Candidate | None:
    """The checkpoint that `training_domain` reports; None where the runs do not suffice."""
    return _best(_first_highest(run, source_validation(run)) for run, _ in _settings(runs))


def leave_one_domain_out(runs: Sequence[RunRecord]) -> Selected | None:
    """Leave-one-domain-out cross-validation: each source environment is held out in turn, in a run of its own.

    For held-out environment t the validation accuracy at a step is the mean over the sources j of the in-split
    accuracy on j in the run with held-out {t, j}, same setting and step. Settings and steps without all of those
    runs are not considered. Ties and errors: as in `training_domain`.

    Source: DomainBed `LeaveOneOutSelectionMethod`.
    """
    return _reported(_best(_cross_validated(run, others) for run, others in _settings(runs)))


def oracle(runs: Sequence[RunRecord]) -> Selected | None:
    """Test-domain validation: the last step of each run, the setting with the highest held-out out-split accuracy.

    No early stopping; on ties the highest hparams_seed.

    Source: DomainBed `OracleSelectionMethod`.
    """
    last = ((run, len(run.steps) - 1) for run, _ in _settings(runs))
    return _reported(_best(Candidate(run, at, float(run.out_acc[at, run.test_envs[0]])) for run, at in last))


def last(runs: Sequence[RunRecord]) -> Selected | None:
    """The last step of each run, the setting with the highest mean out-split accuracy over the sources there.

    No checkpoint is selected; hyperparameters, where several settings were run, by training domains only. On ties the
    highest hparams_seed.

    Source: none in DomainBed; what is reported of training without any early stopping.
    """
    return _reported(
        _best(Candidate(run, len(run.steps) - 1, float(source_validation(run)[-1])) for run, _ in _settings(runs))
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "training-domain",
            "training-domain validation set",
            "a run with an evaluated source environment",
            training_domain,
        ),
        Method(
            "leave-one-domain-out",
            "leave-one-domain-out cross-validation",
            "also the runs that hold out each pair of environments",
            leave_one_domain_out,
        ),
        Method(
            "oracle",
            "test-domain validation set (oracle)",
            "the held-out environment evaluated at the last step",
            oracle,
        ),
        Method(
            "last",
            "last step, no selection of checkpoints",
            "a source environment and the held-out one evaluated at the last step",
            last,
        ),
    )
}
DOMAINBED = ("training-domain", "leave-one-domain-out", "oracle")  # those of DomainBed, in its order


def _settings(runs: Sequence[RunRecord]) -> list[tuple[RunRecord, list[RunRecord]]]:
    """For each setting in ascending hparams_seed: the run that holds out one environment, and the others."""
    groups: dict[tuple[int, str], list[RunRecord]] = {}
    for run in runs:
        groups.setdefault((run.hparams_seed, run.hparams), []).append(run)
    settings = []
    for _, group in sorted(groups.items()):
        single = [run for run in group if run.single]
        if len(single) > 1:
            names = ", ".join(run.name for run in single)
            raise UserError(f"These runs should be one: {names}. Keep one per setting, environment and trial.")
        if single:
            settings.append((single[0], [run for run in group if run is not single[0]]))
    return settings


def source_validation(run: RunRecord) -> FloatArray:
    """Unweighted mean out-split accuracy over the source environments, [T]."""
    # Row-major, so that NumPy sums a row in the order in which it would sum a list: ties stay ties.
    sources: FloatArray = np.ascontiguousarray(np.delete(run.out_acc, run.test_envs[0], axis=1))
    return np.asarray(sources.mean(axis=1))


def _first_highest(run: RunRecord, val_acc: FloatArray) -> Candidate | None:
    if run.evaluated:  # the method ends in weights of its own, and the evaluations before were of others
        val_acc = np.concatenate([np.full(len(val_acc) - 1, np.nan), val_acc[-1:]])
    if np.isnan(val_acc).all():
        return None
    at = int(np.nanargmax(val_acc))
    return Candidate(run, at, float(val_acc[at]))


def _cross_validated(run: RunRecord, others: Iterable[RunRecord]) -> Candidate | None:
    test_env = run.test_envs[0]
    second = {next(e for e in r.test_envs if e != test_env): r for r in others if len(r.test_envs) == 2}
    sources = [env for env in range(run.n_envs) if env != test_env]
    if any(env not in second for env in sources):
        return None
    steps = functools.reduce(np.intersect1d, [second[env].steps for env in sources], run.steps)
    columns = [second[env].in_acc[np.searchsorted(second[env].steps, steps), env] for env in sources]
    val_acc = np.full(len(run.steps), np.nan)
    val_acc[np.searchsorted(run.steps, steps)] = np.stack(columns, axis=1).sum(axis=1) / len(sources)
    return _first_highest(run, val_acc)


def _best(candidates: Iterable[Candidate | None]) -> Candidate | None:
    """The candidate with the highest validation accuracy, the last one on ties."""
    best: Candidate | None = None
    for candidate in candidates:
        if candidate is None or np.isnan(candidate.val_acc):
            continue
        if best is None or candidate.val_acc >= best.val_acc:
            best = candidate
    return best


def _reported(best: Candidate | None) -> Selected | None:
    if best is None:
        return None
    run, test_env, step = best.run, best.run.test_envs[0], int(best.run.steps[best.at])
    test_acc = float(run.in_acc[best.at, test_env])
    if np.isnan(test_acc):
        raise UserError(
            f"Run {run.name} ({run.algorithm} on {run.dataset}, trial {run.trial_seed}): step {step} is selected, but "
            f"env{test_env}_in_acc, the accuracy to report, is NaN there. Evaluate the held-out environment at every "
            "step at which the source accuracy is a new best, and at the last step; run it again with that."
        )
    return Selected(test_acc, best.val_acc, step, run.hparams_seed, run.name)
