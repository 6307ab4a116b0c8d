"""Several results folders, of other labs or dates, as one; whether they agree is stated."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError, counted
from domainbed_sage.results import planned
from domainbed_sage.results.agreement import check_agreement
from domainbed_sage.results.begun import Begun
from domainbed_sage.results.expected import Key
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.loaded import Loaded
from domainbed_sage.results.records import RunRecord

_OF_RUNS = {name: name for name in ("model", "optimizer", "precision", "holdout_fraction", "device")}
_BY_DATASET = {  # what may well differ between datasets, by name in a sentence
    "steps": "planned_steps",
    "population": "variant",
    "trials": "trial_seed",
    "hparams_seed": "hparams_seed",
}
_UNSTATED = "not stated"
_MOST = 6  # values in a sentence


def load_folders(
    paths: Sequence[Path], *, include_unfinished: bool = False, unpacked: ExitStack | None = None
) -> Loaded:
    """Read the runs of all these results folders, as `load_records` reads one; a folder given twice counts once.

    A run that is in several folders counts once. The plans of all folders are joined. `Loaded.remarks` says in which
    facts the runs of the folders agree, and names the values of those in which they differ.

    Args:
        paths: results folders.
        include_unfinished: also read runs without a `done` file.
        unpacked: as of `load_records`.

    Raises:
        UserError: no folder is given, runs of the same name differ, or as `load_records`, for each and for all.
    """
    if not paths:
        raise UserError("No results folder is given. Give one or several that hold run directories.")
    places = {path.resolve(): path for path in paths}.values()
    parts = {path: load_records(path, include_unfinished=include_unfinished, unpacked=unpacked) for path in places}
    if len(parts) == 1:
        return next(iter(parts.values()))
    joined = _join(parts)
    check_agreement(joined.records, joined.path)
    return joined


def _join(parts: Mapping[Path, Loaded]) -> Loaded:
    records: dict[str, RunRecord] = {}
    folders: dict[str, Path] = {}
    again = 0
    for place, loaded in parts.items():
        for run in loaded.records:
            other = records.setdefault(run.name, run)
            _check_equal(folders.setdefault(run.name, place), other, place, run)
            again += other is not run
    plans = [loaded.planned for loaded in parts.values() if loaded.planned is not None]
    keys = tuple(dict.fromkeys(key for plan in plans for key in plan))
    return replace(
        next(iter(parts.values())),
        records=tuple(records.values()),
        unfinished=tuple(_named(parts, "unfinished")),
        foreign=tuple(_named(parts, "foreign")),
        empty=tuple(_named(parts, "empty")),
        unreadable=tuple((str(p / name), why) for p, loaded in parts.items() for name, why in loaded.unreadable),
        planned=keys if plans else None,
        plan_fault=" ".join(loaded.plan_fault for loaded in parts.values() if loaded.plan_fault),
        folders=folders,
        unpacked={name: path for loaded in parts.values() for name, path in loaded.unpacked.items()},
        waiting=tuple(_waiting(parts, {run.key for run in records.values() if run.single})),
        remarks=(*_overlap(again), *provenance(parts), *_unplanned(parts, bool(plans)), *_own(parts)),
    )


def _named(parts: Mapping[Path, Loaded], kind: str) -> Iterator[str]:
    return (str(place / name) for place, loaded in parts.items() for name in getattr(loaded, kind))


def _waiting(parts: Mapping[Path, Loaded], there: Collection[Key]) -> Iterator[Begun]:
    """Unfinished runs whose result is in no folder, named as in `Loaded.unfinished`."""
    for place, loaded in parts.items():
        yield from (replace(run, name=str(place / run.name)) for run in loaded.waiting if run.key not in there)


def _check_equal(place: Path, run: RunRecord, other_place: Path, other: RunRecord) -> None:
    differing = [f.name for f in fields(RunRecord) if not _same(getattr(run, f.name), getattr(other, f.name))]
    if differing:
        raise UserError(
            f"{place / run.name} and {other_place / run.name} have the name of one run, but differ in "
            f"{', '.join(differing)}. Equal copies count once; of different ones, keep the right one, or rename one."
        )


def _same(one: Any, other: Any) -> bool:
    return one is other or (
        np.array_equal(one, other, equal_nan=True) if isinstance(one, np.ndarray) else bool(one == other)
    )


def _overlap(again: int) -> list[str]:
    return [f"{counted(again, 'run')} found again in a further folder, equal and counted once."] if again else []


def _unplanned(parts: Mapping[Path, Loaded], planned_elsewhere: bool) -> list[str]:
    without = [str(place) for place, loaded in parts.items() if loaded.planned is None and not loaded.plan_fault]
    if not planned_elsewhere or not without:
        return []
    return [f"There is no {planned.FILE} in {', '.join(without)}: which of their runs are missing is not known."]


def _own(parts: Mapping[Path, Loaded]) -> Iterator[str]:
    return (f"In {place}: {remark}" for place, loaded in parts.items() for remark in loaded.remarks)


def provenance(parts: Mapping[Path, Loaded]) -> list[str]:
    """Sentences on the facts in which the runs of the folders agree, and on each in which they differ.

    Steps, populations, trials and hparams_seed are compared on the datasets that folders share.
    """
    agreed, sentences = [], []
    for name, found in _facts(parts).items():
        different: defaultdict[str, list[str]] = defaultdict(list)  # datasets by the sentence on them
        for dataset, by_folder in found.items():
            if len(by_folder) > 1 and len(set(by_folder.values())) > 1:
                different[_told(by_folder)].append(dataset)
        for told, datasets in different.items():
            where = f" on {', '.join(sorted(datasets))}" if any(datasets) else ""
            sentences.append(f"The folders differ in {name}{where}: {told}.")
        if not different and any(len(by_folder) > 1 for by_folder in found.values()):
            agreed.append(name)
    return [f"The folders agree in {', '.join(agreed)}."] * bool(agreed) + sentences


def _facts(parts: Mapping[Path, Loaded]) -> dict[str, dict[str, dict[Path, frozenset[Any]]]]:
    """For each fact, dataset (or "" for all) and folder, the values that runs have."""
    found: dict[str, dict[str, dict[Path, frozenset[Any]]]] = {}
    for place, loaded in parts.items():
        datasets: defaultdict[str, list[RunRecord]] = defaultdict(list)
        for run in loaded.records:
            datasets[run.dataset].append(run)
        for name, fact in _OF_RUNS.items():
            found.setdefault(name, {}).setdefault("", {})[place] = _values(loaded.records, fact)
        for name, fact in _BY_DATASET.items():
            for dataset, runs in datasets.items():
                found.setdefault(name, {}).setdefault(dataset, {})[place] = _values(runs, fact)
    for name, by_folder in _versions(parts).items():
        found[name] = {"": by_folder}
    return found


def _versions(parts: Mapping[Path, Loaded]) -> dict[str, dict[Path, frozenset[Any]]]:
    stated = {
        place: [strict_json.loads(text or "{}") for text in sorted({run.versions for run in loaded.records})]
        for place, loaded in parts.items()
    }
    names = sorted({name for versions in stated.values() for own in versions for name in own})
    return {
        name if name == "commit" else f"version of {name}": {
            place: frozenset(own.get(name, _UNSTATED) for own in versions) for place, versions in stated.items()
        }
        for name in names
    }


def _values(runs: Iterable[RunRecord], fact: str) -> frozenset[Any]:
    """The values of a fact; of seeds 0 is one, and of all others it stands for none."""
    return frozenset(getattr(run, fact) or (0 if fact.endswith("_seed") else _UNSTATED) for run in runs)


def _told(by_folder: Mapping[Path, frozenset[Any]]) -> str:
    """E.g. ``cpu in A, B; cuda in C``."""
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for place, values in by_folder.items():
        texts = [str(value) for value in sorted(values, key=lambda value: (isinstance(value, str), value))]
        more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
        folders[", ".join(texts[:_MOST]) + more].append(str(place))
    return "; ".join(f"{values} in {', '.join(places)}" for values, places in folders.items())
