"""The status of a sweep: what its runs' own folders say, and what Slurm says about the rest.

Runs that are known to be done are not looked at. They are listed in `<results>/index.json`, by name, inode and
modification time of the folder, so that a folder that was changed, or recreated, is looked at again.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import regular, write_atomically
from domainbed_sage.results.failures import FAILED, read_note
from domainbed_sage.results.planned import PlannedRun
from domainbed_sage.sweeps.cluster import ledger, slurm
from domainbed_sage.sweeps.cluster.ledger import Array
from domainbed_sage.sweeps.cluster.slurm import QueuedJob
from domainbed_sage.training import ownership
from domainbed_sage.training.notes import read_progress

log = logging.getLogger(__name__)

INDEX = "index.json"
SILENT_S = 120  # not every node sees locks, but all see progress notes
State: TypeAlias = Literal["done", "running", "queued", "failed", "missing"]
STATES: tuple[State, ...] = ("done", "running", "queued", "failed", "missing")


@dataclass(frozen=True)
class RunState:
    """Where one run stands.

    Attributes:
        name: of its folder.
        dataset: of the run.
        label: its row of the table.
        state: see `STATES`.
        job: Slurm's id of its last job, if it has one.
        kind: for failures, a word: the error's type, or Slurm's state of the job.
        reason: for failures, the message.
        lost: its job ended without giving a reason: killed, out of memory, cancelled, or its node is gone.
        log: for failures, the file to read.
        progress: the note that a running one leaves.
    """

    name: str
    dataset: str
    label: str
    state: State
    job: str = ""
    kind: str = ""
    reason: str = ""
    lost: bool = False
    log: Path | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it failed."""
        return self.state == "failed"


@dataclass(frozen=True)
class Survey:
    """Where all runs stand.

    Attributes:
        runs: one state each, in the sweep's order.
        jobs: jobs of this sweep in the queue.
        waiting: why jobs wait, in Slurm's words, and how many.
        trouble: why Slurm could not be queried; empty if it could.
    """

    runs: tuple[RunState, ...]
    jobs: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""

    def counts(self) -> Counter[str]:
        """Runs in each state."""
        return Counter(run.state for run in self.runs)


def survey(runs: Sequence[PlannedRun], results: Path, *, patient: bool = False) -> Survey:
    """Look at the runs' folders and at the queue.

    Args:
        runs: all runs of the sweep.
        results: the results folder.
        patient: go on without Slurm if it does not answer, and say so; otherwise that is an error.

    Raises:
        UserError: Slurm does not answer.
    """
    arrays = ledger.read(results)
    queue, trouble = _ask(arrays, patient)
    done = finished(runs, results)
    look = _Look(results, arrays, queue, trusted=not trouble)
    states = [
        RunState(name, run.dataset, run.label, "done") if (name := run.folder_name) in done else look.at(run)
        for run in runs
    ]
    if not trouble:
        states = _with_accounts(states)
    waiting = Counter(job.reason.strip("()") for job in queue.values() if not job.running)
    return Survey(tuple(states), len(queue), waiting, trouble)


def finished(runs: Iterable[PlannedRun], results: Path) -> set[str]:
    """Names of the folders of the finished runs."""
    if not results.is_dir():
        return set()
    with os.scandir(results) as entries:
        there = {entry.name: _stamp(entry) for entry in entries}
    path = results / INDEX
    known, done = read_note(path), {}
    for name in (run.folder_name for run in runs):
        stamp = there.get(name)
        if stamp is not None and (known.get(name) == stamp or regular(results / name / "done")):
            done[name] = stamp
    kept = {name: stamp for name, stamp in known.items() if there.get(name) == stamp}
    if kept | done != known:
        try:
            write_atomically(path, strict_json.dumps(kept | done))
        except UserError as error:  # a reader of another user's results may be unable to write there
            log.info("%s", error)
    return set(done)


def _stamp(entry: "os.DirEntry[str]") -> list[int]:
    """Inode and modification time of a folder: they change if it is recreated, or a file in it removed."""
    return [entry.inode(), entry.stat().st_mtime_ns]


def _ask(arrays: Sequence[Array], patient: bool) -> tuple[dict[str, QueuedJob], str]:
    if not arrays:
        return {}, ""
    try:
        return slurm.queue(array.name for array in arrays), ""
    except UserError as error:
        if not patient:
            raise
        return {}, str(error)


class _Look:
    """Looks at runs that are not done."""

    def __init__(
        self, results: Path, arrays: Sequence[Array], queue: Mapping[str, QueuedJob], *, trusted: bool
    ) -> None:
        self.results, self.queue, self.trusted = results, queue, trusted
        self.last: dict[str, tuple[str, Array, bool]] = {}  # run -> its last job, and whether it is alone in it
        for array in arrays:
            for job, names in array.jobs(queue):
                alone = len(names) == 1
                self.last |= {name: (job, array, alone) for name in names if not self._queued(name)}

    def _queued(self, name: str) -> bool:
        return name in self.last and self.last[name][0] in self.queue

    def _trains_now(self, folder: Path) -> bool:
        """Whether a run, one of several of its job, is the one that is training."""
        if ownership.is_held(folder / "lock"):
            return True
        try:
            return time.time() - (folder / "progress.json").stat().st_mtime < SILENT_S
        except OSError:
            return False

    def at(self, run: PlannedRun) -> RunState:
        """The state of a run that is not done."""
        name = run.folder_name
        job, array, alone = self.last.get(name, ("", None, True))
        state = RunState(name, run.dataset, run.label, "missing", job)
        folder = self.results / name
        begun = (folder / "run.json").exists()
        if queued := self.queue.get(job):
            active = queued.running and begun and (alone or self._trains_now(folder))
            return replace(state, state="running" if active else "queued", progress=read_progress(folder))
        if begun and ownership.is_held(folder / "lock"):
            return replace(state, state="running", progress=read_progress(folder))
        if facts := read_note(folder / FAILED):
            reason, kind = str(facts.get("reason", "")), str(facts.get("kind", ""))
            return replace(state, state="failed", kind=kind, reason=reason, log=folder / "err.txt")
        if array and not self.trusted:
            return replace(state, state="queued")
        job_log = ledger.folder(self.results, array) / f"{job}_0_log.err" if array else None
        if begun or (job_log and job_log.exists()):
            reason = "its job ended without a word" if array else "it was stopped, or killed"
            return replace(state, state="failed", kind="lost", reason=reason, lost=True, log=job_log)
        return state


def _with_accounts(runs: Sequence[RunState]) -> list[RunState]:
    """Add what Slurm's accounting says about lost runs."""
    states = slurm.accounts([run.job for run in runs if run.lost and run.job])
    return [replace(run, kind=states[run.job]) if run.lost and run.job in states else run for run in runs]
