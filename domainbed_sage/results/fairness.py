"""Whether two rows of a table were run under equal conditions."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from domainbed_sage.core import strict_json
from domainbed_sage.results.records import RunRecord

_FACTS = {
    "model": "model",
    "optimizer": "optimizer",
    "precision": "precision",
    "training steps": "planned_steps",
    "population of images": "variant",
    "holdout_fraction": "holdout_fraction",
    "device": "device",
}  # what a sentence calls it: attribute of a `RunRecord`
_BUDGET = "hyperparameter settings per result"
Conditions: TypeAlias = Mapping[tuple[str, str], set[Any]]  # values by fact and dataset


def uneven(here: Conditions, there: Conditions, reference: str) -> list[str]:
    """What two rows differ in beside the method, one sentence for each fact.

    Compared are model, optimizer, precision, steps, population of images, split sizes, devices, versions of the
    software, and how many hyperparameter settings were searched; on each dataset that both have. A fact that the
    records do not say agrees with everything.

    Args:
        here: the conditions of one row, see `conditions`.
        there: those of the other.
        reference: name of the other row.
    """
    differing: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for fact, dataset in sorted(here.keys() & there.keys()):
        if here[fact, dataset] != there[fact, dataset]:
            values = f"{_shown(here[fact, dataset])}, {reference} {_shown(there[fact, dataset])}"
            differing[fact][values].append(dataset)
    return [
        f"unequal {fact}: " + "; ".join(f"{values} ({', '.join(on)})" for values, on in by_values.items()) + "."
        for fact, by_values in differing.items()
    ]


def conditions(runs: Iterable[RunRecord]) -> Conditions:
    """What the runs of a row were run with."""
    found: defaultdict[tuple[str, str], set[Any]] = defaultdict(set)
    settings: defaultdict[tuple[str, int, int], set[tuple[int, str]]] = defaultdict(set)
    for run in runs:
        if run.single:
            settings[run.dataset, run.test_envs[0], run.trial_seed].add((run.hparams_seed, run.hparams))
        for fact, value in _facts(run):
            if value:
                found[fact, run.dataset].add(value)
    for (dataset, _, _), tried in settings.items():
        found[_BUDGET, dataset].add(len(tried))
    return found


def _facts(run: RunRecord) -> Iterator[tuple[str, Any]]:
    for name, attribute in _FACTS.items():
        yield name, getattr(run, attribute)
    for name, version in strict_json.loads(run.versions or "{}").items():
        yield (name if name == "commit" else f"version of {name}"), version


def _shown(values: Iterable[Any]) -> str:
    return " or ".join(str(value)[:40] for value in sorted(values))
