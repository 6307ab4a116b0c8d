"""What a person sees of a sweep that runs: a line for each finished run with its result, bars, and when it will end."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from domainbed_sage.algorithms import algorithms
from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import planned
from domainbed_sage.results.escape import printable
from domainbed_sage.results.records import RESULTS, parse_run, run_record
from domainbed_sage.results.selection import Selected, training_domain
from domainbed_sage.training.notes import read_progress

FRESH_S = 600.0  # age of a note that an active run has written


class Overview:
    """A bar for the sweep and one for each active run; on anything but a terminal, one line per finished run."""

    def __init__(self, folder: Path, runs: Sequence[RunConfig], missing: Sequence[RunConfig], rows: int) -> None:
        self.folder, self.count = folder, len(runs) - len(missing)
        self.names, self.clock = names(runs, planned.labels(folder)), Clock(missing, rows)
        self.total = tqdm(
            total=len(runs),
            initial=self.count,
            disable=None,
            position=0,
            bar_format="{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}",
            desc="runs",
        )
        self.rows = [
            tqdm(total=1, disable=None, position=i + 1, leave=False, bar_format="  {desc} |{bar:20}|{postfix}")
            for i in range(rows)
        ]

    def begin(self, run: RunConfig) -> None:
        """Note that a run begins, or goes on from where it was interrupted."""
        note = read_progress(self.folder / run.folder_name)
        self.clock.begin(run, note.get("step", 0) / run.steps)

    def finished(self, run: RunConfig, failure: str) -> None:
        """Count a finished run; print its result and the time left, or the first line of why it failed."""
        self.count += 1
        seconds, head = self.clock.end(run, failed=bool(failure)), f"{self.count:>4}/{self.total.total}  "
        left = self.clock.left()
        self.total.set_postfix_str(left, refresh=False)
        self.total.update()
        if failure:
            tqdm.write(f"{head}{run.folder_name}: FAILED: {failure.splitlines()[0]}")
            return
        found = result(self.folder / run.folder_name)
        verdict = f"{100 * found.test_acc:.1f} (validation {100 * found.val_acc:.1f})" if found else "done"
        verdict += f", {duration(seconds)}" if seconds is not None else ""
        tqdm.write(f"{head}{self.names[run.run_id]}: {verdict}" + (f"; {left}" if left else ""))

    def look(self, pending: Sequence[RunConfig]) -> None:
        """Show how far the active runs are, from the notes in their folders."""
        if self.total.disable:
            return
        notes = [(run, self._note(run)) for run in pending]
        active = [(run, note) for run, note in notes if {"step", "steps"} <= note.keys()][: len(self.rows)]
        for row, (run, note) in zip(self.rows, active, strict=False):
            row.total, row.n = note["steps"], note["step"]
            row.set_description_str(f"{run.algorithm:<8} {run.dataset} {run.held_out} {note['step']:>6.0f}", False)
            row.set_postfix({k: f"{note[k]:.3f}" for k in ("loss", "agreement") if k in note}, refresh=False)
            row.refresh()
        self.total.set_postfix_str(self.clock.left())

    def close(self) -> None:
        """Leave only the sweep's bar."""
        for row in [*self.rows, self.total]:
            row.close()

    def _note(self, run: RunConfig) -> dict[str, float]:
        folder = self.folder / run.folder_name
        try:
            fresh = time.time() - (folder / "progress.json").stat().st_mtime < FRESH_S
        except OSError:
            return {}
        return read_progress(folder) if fresh else {}


class Clock:
    """Estimates when a sweep ends, at the pace of the runs that it has finished.

    The work of a run is the number of images in its forward-backward passes. Evaluations and the loading of data are in
    the pace and not in the work.
    """

    def __init__(self, missing: Sequence[RunConfig], processes: int) -> None:
        self.processes, self.work = processes, {run.run_id: work(run) for run in missing}
        self.began: dict[str, float] = {}
        self.seconds = self.done = 0.0

    def begin(self, run: RunConfig, share: float) -> None:
        """Start the time of a run, of which this share of the steps was done before."""
        self.began[run.run_id] = time.monotonic()
        self.work[run.run_id] = work(run) * (1 - min(max(share, 0.0), 1.0))

    def end(self, run: RunConfig, *, failed: bool = False) -> float | None:
        """Seconds since the run began; None if it did not. A run that failed says nothing about the pace."""
        own, began = self.work.pop(run.run_id, 0.0), self.began.pop(run.run_id, None)
        if began is None:
            return None
        seconds = time.monotonic() - began
        if not failed:
            self.seconds, self.done = self.seconds + seconds, self.done + own
        return seconds

    def left(self) -> str:
        """The time left in words; nothing before a run is finished, or where none is left."""
        if not (self.done and self.work):
            return ""
        pace, now = self.seconds / self.done, time.monotonic()
        left = [max(pace * own - (now - self.began.get(name, now)), 0.0) for name, own in self.work.items()]
        return f"about {duration(max(sum(left) / self.processes, max(left)))} left"


def work(run: RunConfig) -> float:
    """Images in the forward-backward passes of a run; without a pass, those of its steps."""
    passes = algorithms[run.algorithm].passes(run.steps, run.hparams) or run.steps
    return float(passes) * float(run.hparams["batch_size"]) * len(run.source_envs)


def names(runs: Sequence[RunConfig], labels: Mapping[str, str]) -> dict[str, str]:
    """What each run is called in a line, by its run_id: in what it differs from others of the sweep.

    Args:
        runs: all of them.
        labels: the row of a run by the name of its folder; without one it goes by its algorithm.
    """
    several = len({run.dataset for run in runs}) > 1
    called = {}
    for run in runs:
        row = printable(labels.get(run.folder_name, run.algorithm))
        parts = [f"{run.dataset} {row}" if several else row, f"held out {run.held_out}"]
        parts += [f"trial {run.trial_seed}", *([f"setting {run.hparams_seed}"] if run.hparams_seed else [])]
        called[run.run_id] = ", ".join(parts)
    times = Counter(called.values())
    return {run_id: name if times[name] == 1 else f"{name}, run {run_id}" for run_id, name in called.items()}


def result(folder: Path) -> Selected | None:
    """What training-domain validation selects of a run; None where its records cannot be read or nothing is there."""
    try:
        lines, _ = parse_run(folder / RESULTS)
        return training_domain([run_record(folder, lines)]) if lines else None
    except (OSError, UserError):
        return None


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
