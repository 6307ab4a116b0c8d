"""The folder of one run: its lock, its description, its records, its checkpoint, and the `done` marker."""

import logging
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from domainbed_sage.config import RunConfig, read_config
from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.core.files import atomic, explained, explained_reading, flush, regular, write_atomically
from domainbed_sage.results.failures import FAILED
from domainbed_sage.results.records import read_run
from domainbed_sage.training import checkpoint, origin, ownership
from domainbed_sage.training.checkpoint import Damaged
from domainbed_sage.training.notes import note_failure
from domainbed_sage.training.run_logs import LogFile

log = logging.getLogger(__name__)


class RunFolder:
    """What one run writes, safe against being killed at any moment.

    Files: `run.json` (the science), `results.jsonl` (DomainBed's records), `out.txt` and `err.txt` (logs), `model.pkl`
    (final weights), `correct.npz` (on request), `done` (last of all), `lock`; while it runs, `checkpoint.pt`, the one
    before it, and `progress.json`; `failed.json` after an error. Whole files are written elsewhere and then renamed;
    records are appended line by line, and a torn last line is cut at the next start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results, self.checkpoint, self.done = (path / name for name in ("results.jsonl", "checkpoint.pt", "done"))
        self.previous = path / "checkpoint.previous.pt"
        self.recorded = 0  # records that the next checkpoint counts on
        self.last: Mapping[str, Any] = {}  # of them
        self.config: RunConfig | None = None  # of the run that claims it
        self._ownership: ownership.Ownership | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder inside the block, see `ownership`.

        Raises:
            UserError: another process owns it, or it cannot be made.
        """
        with ownership.owned(self.path / "lock") as self._ownership:
            yield

    def check_owner(self) -> None:
        """Make sure that no later start of this job has taken the folder over.

        Raises:
            Fenced: it has.
        """
        if self._ownership is not None:
            self._ownership.check()

    def claim(self, config: RunConfig) -> None:
        """Write the run's description, or check that the folder already belongs to this run.

        Raises:
            UserError: the folder holds another run, or records of unknown origin.
        """
        self.config, description = config, self.path / "run.json"
        if regular(description):
            origin.check_description(read_description(description), config, self.path)
        elif any(regular(path) for path in (self.results, self.checkpoint, self.done)):
            raise UserError(
                f"{self.path} holds results but no run.json, so they are not this run's. Choose another --output_dir."
            )
        else:
            write_atomically(description, strict_json.dumps(config, indent=1, sort_keys=True) + "\n")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint, all or nothing, and keep the one before.

        Raises:
            UserError: the disk is full, or the state is not one to continue from; see `checkpoint.write`.
            Fenced: a later start of this job owns the folder.
        """
        self.check_owner()
        run_id = self.config.run_id if self.config else None
        with atomic(self.checkpoint) as file:
            checkpoint.write(file, {**state, "recorded": self.recorded, "run_id": run_id})
            if regular(self.checkpoint):
                self.checkpoint.replace(self.previous)

    def restore(self) -> dict[str, Any] | None:
        """Read the last good checkpoint and cut the records back to it; `None` starts from the beginning.

        A checkpoint that is damaged, or whose records are gone, is set aside with a warning, and the one before is
        taken: the result is the same.

        Raises:
            UserError: a file cannot be read, or belongs to another run; a record before the last one is damaged.
            Fenced: a later start of this job owns the folder.
        """
        for path in (self.checkpoint, self.previous):
            state = self._read(path) if regular(path) else None
            if state is not None:
                return state
        self._cut_records(0)
        return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            with explained_reading(path):
                state = checkpoint.read(path)
        except Damaged as damage:
            self._set_aside(path, f"is damaged ({damage})")
            return None
        if self.config:
            origin.check_checkpoint(state.get("run_id"), self.config, path)
        self._cut_records(state["step"])
        if self.recorded != state.get("recorded"):
            self._set_aside(path, f"counts on {state.get('recorded')} records, and {self.results} has {self.recorded}")
            return None
        return state

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record; a line that could not be written whole is removed.

        Raises:
            UserError: the disk is full.
        """
        self.check_owner()
        size = self.results.stat().st_size if regular(self.results) else 0
        try:
            with explained(self.results), self.results.open("ab") as file:
                file.write((strict_json.dumps(record, sort_keys=True) + "\n").encode())
                flush(file)
        except BaseException:  # only after the file was closed, which writes what is left in the buffer
            with suppress(OSError):  # if this fails too, the next start cuts the torn line
                os.truncate(self.results, size)
            raise
        self.recorded += 1

    def finish(self, model: Mapping[str, Any] | None, *, keep_checkpoint: bool = False) -> None:
        """Write the final weights (unless `None`), then the `done` marker, then remove what only a restart needs."""
        self.check_owner()
        if model is not None:
            with atomic(self.path / "model.pkl") as file:
                torch.save(dict(model), file)
        write_atomically(self.done, "done")
        self.clean(keep_checkpoint=keep_checkpoint)

    def finished(self, config: RunConfig, *, keep_checkpoint: bool = False) -> bool:
        """Whether this run is done and nothing is left to clean, so that nothing needs to be locked, or written.

        Raises:
            UserError: another run is done here, or `done` is not a file.
        """
        if not regular(self.done):
            return False
        self.claim(config)
        return not any(path.exists() for path in self._leftovers(keep_checkpoint))

    def clean(self, *, keep_checkpoint: bool = False) -> None:
        """Remove what only a restart needs."""
        for path in self._leftovers(keep_checkpoint):
            with explained(path):
                path.unlink(missing_ok=True)

    def _leftovers(self, keep_checkpoint: bool) -> list[Path]:
        checkpoints = [] if keep_checkpoint else [self.checkpoint, self.previous]
        return [*checkpoints, self.path / "progress.json", self.path / FAILED, *self.path.glob("*.tmp")]

    def forget_failure(self) -> None:
        """Remove the failure note of an earlier attempt."""
        with explained(self.path / FAILED):
            (self.path / FAILED).unlink(missing_ok=True)

    def progress(self, state: Mapping[str, Any]) -> None:
        """Write a note of the run's progress, for the overview of a sweep.

        Raises:
            Fenced: a later start of this job owns the folder.
        """
        self.check_owner()
        write_atomically(self.path / "progress.json", strict_json.dumps(dict(state)))

    @contextmanager
    def logs(self) -> Iterator[None]:
        """Copy this package's log messages to `out.txt`; warnings, and what ends the run, to `err.txt`."""
        package = logging.getLogger("domainbed_sage")
        handlers = [LogFile(self.path / name) for name in ("out.txt", "err.txt")]
        handlers[1].setLevel(logging.WARNING)
        level = package.level
        for handler in handlers:
            package.addHandler(handler)
        package.setLevel(logging.INFO)
        try:
            yield
        except Exception as error:
            if not isinstance(error, Stopped):
                self.check_owner()  # whatever failed: a ghost logs nothing in its successor's folder
                self._note_failure(error)
            raise
        finally:
            package.setLevel(level)
            for handler in handlers:
                package.removeHandler(handler)
                handler.close()

    def _note_failure(self, error: Exception) -> None:
        with suppress(OSError), (self.path / "err.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(traceback.format_exc())
        kind = type(error).__name__
        note_failure(self.path, kind, str(error) if isinstance(error, UserError) else f"{kind}: {error}")

    def _set_aside(self, path: Path, reason: str) -> None:
        self.check_owner()
        older = path == self.checkpoint and self.previous.exists()
        instead = "taking the checkpoint before it" if older else "starting over from step 0"
        log.warning("%s %s; %s.", path, reason, instead)
        with explained(path):
            path.replace(path.with_suffix(".damaged"))

    def _cut_records(self, step: int) -> None:
        """Keep the records before `step`, and count them."""
        self.check_owner()
        with explained_reading(self.results):
            there = regular(self.results)
            found = read_run(self.results) if there else []
            before = self.results.read_bytes() if there else b""
        if self.config:
            origin.check_records(found, self.config, self.results)
        kept = [record for record in found if isinstance(record.get("step"), int) and record["step"] < step]
        content = "".join(strict_json.dumps(record, sort_keys=True) + "\n" for record in kept).encode()
        if before != content:
            write_atomically(self.results, content)
        self.recorded, self.last = len(kept), kept[-1] if kept else {}


def read_description(path: Path) -> RunConfig:
    """Read a `run.json`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with explained_reading(path):
            text = path.read_text(encoding="utf-8")
        return read_config(strict_json.loads(text))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not a readable description of a run ({error}).") from None
