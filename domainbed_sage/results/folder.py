"""Read a results folder: every run one level below it, what is missing, and what is contradictory."""

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from domainbed_sage.core.errors import UserError, bullets
from domainbed_sage.core.files import regular
from domainbed_sage.data.multitask.specs import task_datasets
from domainbed_sage.results import packed, planned, record_cache
from domainbed_sage.results.agreement import check_agreement
from domainbed_sage.results.begun import waiting
from domainbed_sage.results.expected import Key, check_plan, planned_keys
from domainbed_sage.results.loaded import Loaded, shortened
from domainbed_sage.results.record_cache import Cached, Stamp
from domainbed_sage.results.records import RESULTS, RunRecord, interned, parse_run, run_record, warn_of_torn_line
from domainbed_sage.results.task_runs import is_on_tasks

PARALLEL_FROM = 1000  # runs
CHUNK = 100
_NOT_READ = f"{packed.FILE} is not read: there are run directories beside it."


def load_records(folder: Path, *, include_unfinished: bool = False, unpacked: ExitStack | None = None) -> Loaded:
    """Read every run one level below `folder`; finished ones that were read before come from the cache.

    An unreadable run or plan is left out and named in the result. Where there is no run but a `runs.zip`, its runs are
    read, see `packed`; a remark says so of one that is not read.

    Args:
        folder: results folder of a sweep, DomainBed's or ours.
        include_unfinished: also read runs without a `done` file, as DomainBed does.
        unpacked: keeps packed runs unpacked until it is closed, see `Loaded.unpacked`.

    Raises:
        UserError: no such folder, no readable run in it, or runs that contradict one another, see `check_agreement`.
    """
    if not folder.is_dir():
        raise UserError(f"There is no results folder {folder}. Give the folder that holds the run directories.")
    is_packed = regular(folder / packed.FILE)
    if is_packed and not any((entry / RESULTS).exists() for entry in folder.iterdir()):
        with ExitStack() as now:
            there = (unpacked or now).enter_context(packed.unpacked(folder))
            loaded = _load(there, folder, include_unfinished)
            places = {name: there / name for name in loaded.folders if unpacked is not None}
            return replace(loaded, folders=dict.fromkeys(loaded.folders, folder), unpacked=places)
    loaded = _load(folder, folder, include_unfinished)
    return replace(loaded, remarks=(*loaded.remarks, _NOT_READ)) if is_packed else loaded


def _load(folder: Path, named: Path, include_unfinished: bool) -> Loaded:
    """Read the runs in a folder, of which messages say that it is the one `named`."""
    reader = _Reader(folder, include_unfinished)
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        reader.classify(entry)
    loaded = _with_plan(reader.loaded(), folder)
    _check_found(named, loaded)
    check_agreement(loaded.records, named.joinpath)
    return loaded


def _with_plan(loaded: Loaded, folder: Path) -> Loaded:
    """Add what the sweeps of this folder plan, and put the runs into the table rows of that plan."""
    try:
        labels, keys, plans = planned.labels(folder), planned_keys(folder), planned.read(folder)
        loaded, keys = _without_tasks(loaded, keys, plans)
        check_plan(loaded.records, keys or ())
    except UserError as error:
        return replace(loaded, plan_fault=str(error))
    records = tuple(replace(run, label=labels.get(run.name, run.label)) for run in loaded.records)
    runs = [run for plan in plans.values() for run in plan.runs if run.folder_name in loaded.unfinished]
    return replace(
        loaded,
        records=records if labels else loaded.records,
        waiting=() if loaded.unfinished_included else waiting(runs, records, folder),
        planned=None if keys is None else tuple(keys),
    )


def _without_tasks(
    loaded: Loaded, keys: list[Key] | None, plans: Mapping[str, planned.Plan]
) -> tuple[Loaded, list[Key] | None]:
    """Leave out what is planned on datasets of several tasks: `task_runs` tells of it."""
    runs = [run for plan in plans.values() for run in plan.runs]
    datasets = set(task_datasets) | {run.dataset for run in runs if run.folder_name in loaded.tasks}
    names = {run.folder_name for run in runs if run.dataset in datasets}
    unfinished, foreign = (tuple(n for n in found if n not in names) for found in (loaded.unfinished, loaded.foreign))
    rest = None if keys is None else [key for key in keys if key[0] not in datasets]
    return replace(loaded, unfinished=unfinished, foreign=foreign), rest


class _Read(NamedTuple):
    """What reading a run's folder gave: its record, or why there is none, and a remark on a torn last line."""

    record: RunRecord | None
    kind: str = ""
    torn: str = ""
    fault: str = ""  # why it is unreadable


class _Reader:
    def __init__(self, folder: Path, include_unfinished: bool) -> None:
        self.folder, self.include_unfinished = folder, include_unfinished
        self.cached = record_cache.read(folder)
        self.stamps: dict[str, Stamp] = {}  # of finished runs
        self.found: dict[str, _Read | None] = {}  # in the order of their names; None until it is read
        self.unfinished: list[str] = []
        self.foreign: list[str] = []
        self.empty: list[str] = []
        self.tasks: list[str] = []
        self.unreadable: list[tuple[str, str]] = []

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
        for name, record, kind, torn, fault in ((name, *found) for name, found in self.found.items() if found):
            if torn:
                warn_of_torn_line(self.folder / name / RESULTS, torn)
            if record is not None and name in self.stamps:
                fault = _cut_short(self.folder, record)
            if fault:
                self.unreadable.append((name, fault))
                continue
            if record is None:
                {"empty": self.empty, "tasks": self.tasks}.get(kind, self.foreign).append(name)
                continue
            records[name] = record
            if name in self.stamps:
                finished[name] = Cached(self.stamps[name], record, torn)
        if any(entry.name in finished for entry in unread):
            record_cache.write(self.folder, finished)
        self.unfinished = [name for name in self.unfinished if name not in {*dict(self.unreadable), *self.tasks}]
        unfinished, foreign, empty = (tuple(sorted(names)) for names in (self.unfinished, self.foreign, self.empty))
        read, folders = tuple(records.values()), dict.fromkeys(records, self.folder)
        return Loaded(
            read,
            unfinished,
            foreign,
            empty,
            self.include_unfinished,
            tuple(self.unreadable),
            folders=folders,
            tasks=tuple(self.tasks),
        )


def _read_all(entries: Sequence[Path]) -> Iterator[_Read]:
    """The runs in these folders, in order; many of them are read by all processors."""
    if len(entries) < PARALLEL_FROM:
        yield from map(_read, entries)
        return
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        for found in pool.map(_read, entries, chunksize=CHUNK):
            yield found._replace(record=found.record and interned(found.record))


def _read(entry: Path) -> _Read:
    try:
        lines, torn = parse_run(entry / RESULTS)
        if not lines:
            return _Read(None, "empty", torn)
        if is_on_tasks(lines[0]):
            return _Read(None, "tasks", torn)
        return _Read(run_record(entry, lines), torn=torn) if "args" in lines[0] else _Read(None, "foreign", torn)
    except (UserError, OSError) as error:
        return _Read(None, fault=str(error))


def _cut_short(folder: Path, run: RunRecord) -> str:
    """What is wrong with a finished run that has no record of its last step; nothing if it says no number of steps."""
    last = run.planned_steps - 1
    if last < 0 or run.steps[-1] == last:
        return ""
    return (
        f"{folder / run.name / RESULTS} is of a finished run of {run.planned_steps} steps, but its records end at "
        f"step {run.steps[-1]} in place of {last}. Delete the run directory and run it again, or "
        "restore the file from a copy."
    )


def _check_found(folder: Path, loaded: Loaded) -> None:
    if loaded.records:
        return
    if loaded.tasks:
        raise UserError(
            f"The runs in {folder} are on several tasks. `domainbed-sage table` shows them, `domainbed-sage "
            "predictions` draws what their networks predict, and `domainbed-sage cite` says what to cite; other "
            "commands read runs of domain generalization."
        )
    if loaded.unreadable:
        raise UserError(f"No run in {folder} can be read:\n{bullets([*loaded.faults[:8], *loaded.left_out()])}")
    if (folder / RESULTS).is_file():
        raise UserError(f"{folder} is itself a run directory. Give the folder above it, which holds all runs.")
    if loaded.unfinished and not loaded.unfinished_included:
        raise UserError(
            f"No run in {folder} is finished (has a file 'done'): {shortened(loaded.unfinished)}. "
            "Wait for them, or use --include-unfinished."
        )
    raise UserError(
        f"There is no run in {folder}: looked for <run>/{RESULTS} with at least one record. "
        f"Found {shortened(loaded.foreign + loaded.empty) or 'nothing'}."
    )
