"""Read a results folder: every run one level below it, what it does not hold, and what contradicts itself."""

import multiprocessing
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import planned, record_cache
from domainbed_sage.results.record_cache import Cached, Stamp
from domainbed_sage.results.records import RESULTS, RunRecord, interned, parse_run, run_record, warn_of_torn_line

_OF_A_ROW = ("algorithm", "model", "optimizer", "precision")  # what a row of a sweep file may set
_ALIKE = {name: name for name in (*_OF_A_ROW, "holdout_fraction")} | {"steps": "planned_steps"}  # by name in a record
PARALLEL_FROM = 1000  # runs
CHUNK = 100
_KNOWN_FILES = re.compile(
    r"(table|paper|curves)\b.*\.(md|tex|csv|txt|png)|results\.(txt|tex)|plan\.json|index\.json|records\.(parquet|npz)|"
    r"jobs|launch\.lock"
)


@dataclass(frozen=True)
class Loaded:
    """What a results folder holds; nothing in it goes unmentioned.

    Attributes:
        records: the runs, by name of their directory.
        unfinished: run directories without a `done` file.
        foreign: entries that are not run directories.
        empty: run directories without a single evaluation.
        unfinished_included: whether `records` contains the unfinished runs.
    """

    records: tuple[RunRecord, ...]
    unfinished: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    unfinished_included: bool = False

    def notes(self) -> list[str]:
        """Sentences for the footer of a table: the populations, which entries were left out, and why."""
        return [*populations(self.records), *self.left_out()]

    def left_out(self) -> list[str]:
        """Which entries are not in `records`, or are although they are not finished, one sentence each kind.

        Tables written earlier, and the sweep's plan, are not worth a mention.
        """
        verb = "Included although not finished" if self.unfinished_included else "Left out, not finished"
        foreign = [name for name in self.foreign if not _KNOWN_FILES.fullmatch(name)]
        stated = [(verb, self.unfinished), ("Without any evaluation", self.empty), ("Not runs", foreign)]
        return [f"{what}: {_shortened(names)}." for what, names in stated if names]


def populations(runs: Iterable[RunRecord]) -> list[str]:
    """A sentence for each dataset that has several populations of images: which one the runs are on."""
    variants = sorted({(run.dataset, run.variant) for run in runs if run.variant})
    return [f"{dataset}: population {variant}." for dataset, variant in variants]


def load_records(folder: Path, *, include_unfinished: bool = False) -> Loaded:
    """Read every run one level below `folder`; finished ones that were read before come from the cache.

    Args:
        folder: results folder of a sweep, DomainBed's or ours.
        include_unfinished: also read runs without a `done` file, as DomainBed does.

    Raises:
        UserError: no such folder, no run in it, an unreadable record, or the same run in two directories.
    """
    if not folder.is_dir():
        raise UserError(f"There is no results folder {folder}. Give the folder that holds the run directories.")
    reader = _Reader(folder, include_unfinished)
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        reader.classify(entry)
    loaded = _with_labels(reader.loaded(), planned.labels(folder))
    _check_found(folder, loaded)
    check_agreement(loaded.records, folder)
    return loaded


def _with_labels(loaded: Loaded, labels: Mapping[str, str]) -> Loaded:
    """The runs in the rows of the table in which the sweeps of this folder put them."""
    records = (replace(run, label=labels.get(run.name, run.label)) for run in loaded.records)
    return replace(loaded, records=tuple(records)) if labels else loaded


def check_agreement(runs: Sequence[RunRecord], folder: Path = Path()) -> None:
    """Check that runs can stand in one table.

    Args:
        runs: the runs.
        folder: where they lie, for the message.

    Raises:
        UserError: two of one row differ in more than hyperparameters, seeds and environments, are the same run, or two
            on one dataset ran on different populations of images.
    """
    _check_alike(folder, runs)
    _check_distinct(folder, runs)
    _check_one_population(folder, runs)


class _Read(NamedTuple):
    """What reading a run's folder gave: its record, or why there is none, and a remark on a torn last line."""

    record: RunRecord | None
    kind: str = ""
    torn: str = ""


class _Reader:
    def __init__(self, folder: Path, include_unfinished: bool) -> None:
        self.folder, self.include_unfinished = folder, include_unfinished
        self.cached = record_cache.read(folder)
        self.stamps: dict[str, Stamp] = {}  # of finished runs
        self.found: dict[str, _Read | None] = {}  # in the order of their names; None until it is read
        self.unfinished: list[str] = []
        self.foreign: list[str] = []
        self.empty: list[str] = []

    def classify(self, entry: Path) -> None:
        """Note what an entry of the folder is; a run that is in the cache is not opened."""
        try:
            stamp = record_cache.stamp(entry)
        except (FileNotFoundError, NotADirectoryError):
            self.foreign.append(entry.name)
            return
        if stamp is not None:
            self.stamps[entry.name] = stamp
            known = self.cached.get(entry.name)
            current = known is not None and known.stamp == stamp
            self.found[entry.name] = _Read(known.record, torn=known.torn) if known and current else None
            return
        self.unfinished.append(entry.name)
        if self.include_unfinished:
            self.found[entry.name] = None

    def loaded(self) -> Loaded:
        """Read what is not in the cache, and keep it there for the next time."""
        unread = [self.folder / name for name, found in self.found.items() if found is None]
        self.found |= {entry.name: found for entry, found in zip(unread, _read_all(unread), strict=True)}
        records: dict[str, RunRecord] = {}
        finished: dict[str, Cached] = {}
        for name, record, kind, torn in ((name, *found) for name, found in self.found.items() if found):
            if torn:
                warn_of_torn_line(self.folder / name / RESULTS, torn)
            if record is None:
                (self.empty if kind == "empty" else self.foreign).append(name)
                continue
            records[name] = record
            if name in self.stamps:
                finished[name] = Cached(self.stamps[name], record, torn)
        if any(entry.name in finished for entry in unread):
            record_cache.write(self.folder, finished)
        unfinished, foreign, empty = (tuple(sorted(names)) for names in (self.unfinished, self.foreign, self.empty))
        return Loaded(tuple(records.values()), unfinished, foreign, empty, self.include_unfinished)


def _read_all(entries: Sequence[Path]) -> Iterator[_Read]:
    """The runs in these folders, in order; many of them are read by all processors."""
    if len(entries) < PARALLEL_FROM:
        yield from map(_read, entries)
        return
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        for found in pool.map(_read, entries, chunksize=CHUNK):
            yield found._replace(record=found.record and interned(found.record))


def _read(entry: Path) -> _Read:
    lines, torn = parse_run(entry / RESULTS)
    if not lines:
        return _Read(None, "empty", torn)
    return _Read(run_record(entry, lines), torn=torn) if "args" in lines[0] else _Read(None, "foreign", torn)


def _check_found(folder: Path, loaded: Loaded) -> None:
    if loaded.records:
        return
    if (folder / RESULTS).is_file():
        raise UserError(f"{folder} is itself a run directory. Give the folder above it, which holds all runs.")
    if loaded.unfinished and not loaded.unfinished_included:
        raise UserError(
            f"No run in {folder} is finished (has a file 'done'): {_shortened(loaded.unfinished)}. "
            "Wait for them, or use --include-unfinished."
        )
    raise UserError(
        f"There is no run in {folder}: looked for <run>/{RESULTS} with at least one record. "
        f"Found {_shortened(loaded.foreign + loaded.empty) or 'nothing'}."
    )


def _check_alike(folder: Path, runs: Iterable[RunRecord]) -> None:
    """Otherwise the best of two models, say, would be selected as if it were a hyperparameter setting.

    What a record does not say agrees with everything.
    """
    first: dict[tuple[str, str, str], RunRecord] = {}
    for run in runs:
        for field, fact in _ALIKE.items():
            value = getattr(run, fact)
            other = first.setdefault((run.dataset, run.label, fact), run) if value else run
            if value != getattr(other, fact):
                raise UserError(
                    f"{folder / other.name} has {field} {getattr(other, fact)!r}, and {folder / run.name} has {field} "
                    f"{value!r}: both are runs of {run.label} on {run.dataset}, and runs of one row may differ only in "
                    f"hyperparameters, seeds and environments. {_remedy(run, fact)}"
                )


def _remedy(run: RunRecord, fact: str) -> str:
    if fact not in _OF_A_ROW:
        return "Move one set to another folder."
    names = {"algorithm": run.algorithm} | {fact: getattr(run, fact)}
    entry = ", ".join(f"{name}: {value}" for name, value in names.items())
    return (
        f"Give each a row of its own in the sweep file, e.g. `{run.label} {names[fact]}: {{{entry}}}`, or move one set "
        "to another folder."
    )


def _check_distinct(folder: Path, runs: Iterable[RunRecord]) -> None:
    """DomainBed would average or choose among two copies of a run without a word."""
    seen: dict[tuple[Any, ...], RunRecord] = {}
    for run in runs:
        key = (run.dataset, run.label, run.algorithm, run.test_envs, run.trial_seed, run.hparams_seed, run.hparams)
        other = seen.setdefault(key, run)
        if other is not run:
            raise UserError(
                f"{folder / other.name} and {folder / run.name} hold the same run: {run.algorithm} on {run.dataset}, "
                f"held-out environments {list(run.test_envs)}, trial {run.trial_seed}, hparams_seed "
                f"{run.hparams_seed}, equal hyperparameters. Move one of them out of the folder."
            )


def _check_one_population(folder: Path, runs: Iterable[RunRecord]) -> None:
    first: dict[str, RunRecord] = {}
    for run in runs:
        other = first.setdefault(run.dataset, run)
        if run.variant != other.variant:
            raise UserError(
                f"{folder / other.name} ran on population {other.variant!r} of {run.dataset}, and {folder / run.name} "
                f"on {run.variant!r}. Their numbers cannot be averaged: move one kind to another folder."
            )


def _shortened(names: Sequence[str], limit: int = 8) -> str:
    """The first few names and how many there are, for a person."""
    if not names:
        return ""
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} ({', '.join(names[:limit])}{rest})"
