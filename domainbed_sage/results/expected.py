"""What tables should hold: the names of each dataset's environments, and the results to expect."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import planned
from domainbed_sage.results.records import RunRecord

Key = tuple[str, str, int, int]  # dataset, label of the algorithm, held-out environment, trial seed


def planned_keys(folder: Path) -> list[Key] | None:
    """The results that the sweeps of a results folder plan, from its `plan.json`; None without one.

    Those are the results that hold out a single environment, in the order of each sweep's rows and datasets.

    Raises:
        UserError: the file is damaged.
    """
    plans = planned.read(folder)
    runs = [run for plan in plans.values() for run in plan.runs if len(run.test_envs) == 1]
    return list(dict.fromkeys(run.key for run in runs)) if plans else None


def check_plan(records: Iterable[RunRecord], plan: Iterable[Key]) -> None:
    """Make sure that the environments a plan holds out are among those of the runs.

    Raises:
        UserError: one is not; names the dataset.
    """
    n_envs = {run.dataset: run.n_envs for run in records}
    for dataset, _, env, _ in plan:
        if env >= n_envs.get(dataset, env + 1):
            raise UserError(
                f"The plan holds out environment {env} of {dataset}, whose runs have {n_envs[dataset]} environments, "
                f"from 0 on. Move the runs of one of the two data sets to another folder, or remove {planned.FILE} and "
                "repeat `domainbed-sage sweep list FILE`."
            )


def every_combination(records: Sequence[RunRecord], names: Mapping[str, Sequence[str]]) -> list[Key]:
    """All labels x environments x trial seeds of each dataset; ERM, the usual baseline, first.

    Args:
        records: the runs.
        names: environment names of each dataset, see `environment_names`.
    """
    rows = sorted({run.label for run in records}, key=lambda name: (name != "ERM", name.casefold()))
    trials = {dataset: sorted({run.trial_seed for run in records if run.dataset == dataset}) for dataset in names}
    return [
        (dataset, label, env, trial)
        for dataset in names
        for label in rows
        for env in range(len(names[dataset]))
        for trial in trials[dataset]
    ]


def environment_names(
    records: Sequence[RunRecord], plan: Collection[Key], labels: Mapping[str, Sequence[str]] | None
) -> dict[str, tuple[str, ...]]:
    """Environment names of each dataset: the records', else the labels, else env0, env1, ...

    The datasets come in the order of the plan, then of the labels, then by name. Arguments as in `tables.build`.
    """
    if labels is None:
        from domainbed_sage.data.specs import environment_labels

        labels = environment_labels()
    check_plan(records, plan)
    n_planned: dict[str, int] = {}
    for dataset, _, env, _ in plan:
        n_planned[dataset] = max(n_planned.get(dataset, 0), env + 1)
    first: dict[str, RunRecord] = {}
    for run in sorted(records, key=lambda run: not run.environments):
        other = first.setdefault(run.dataset, run)
        if run.n_envs != other.n_envs or (run.environments or other.environments) != other.environments:
            raise UserError(
                f"Runs {other.name} and {run.name} are both on {run.dataset}, but one has {other.n_envs} environments "
                f"{list(other.environments)} and the other {run.n_envs} {list(run.environments)}. Move the runs of one "
                "of the two data sets to another folder."
            )
    names = {}
    for dataset in dict.fromkeys([*n_planned, *(d for d in labels if d in first), *sorted(first)]):
        run_names = first[dataset].environments if dataset in first else ()
        label = tuple(labels.get(dataset, ()))
        n_envs = first[dataset].n_envs if dataset in first else max(n_planned[dataset], len(label))
        fitting = [known for known in (run_names, label) if len(known) == n_envs]
        names[dataset] = fitting[0] if fitting else tuple(f"env{env}" for env in range(n_envs))
    return names
