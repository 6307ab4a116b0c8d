"""The folder of one run: its lock, its description, its records, its checkpoint, and the `done` marker."""

import fcntl
import json
import logging
import os
import socket
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch

from domainbed_sage.config import RunConfig, read_config
from domainbed_sage.errors import Stopped, UserError
from domainbed_sage.files import atomic, explained, flush, write_atomically
from domainbed_sage.records import read_run

log = logging.getLogger(__name__)

# A loader process is a fork that outlives a killed parent by some seconds; it must not keep the parent's lock.
_locks: set[IO[bytes]] = set()
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])


class RunFolder:
    """What one run writes, safe against being killed at any moment.

    Files: `run.json` (the science), `results.jsonl` (DomainBed's records), `out.txt` and `err.txt` (logs),
    `checkpoint.pt` (while it runs), `progress.json` (for the overview of a sweep), `model.pkl` (final weights), `done`
    (last of all), `lock`. Whole files are written beside their place and renamed; records are appended line by line
    and a torn last line is cut at the next start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results, self.checkpoint, self.done = (path / name for name in ("results.jsonl", "checkpoint.pt", "done"))
        self.recorded = 0  # records that the next checkpoint counts on

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder inside the block; the kernel releases the lock when the process ends, however it ends.

        Raises:
            UserError: another process owns it, or it cannot be made.
        """
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("ab+", buffering=0)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().decode().strip() or "another process"
                raise UserError(
                    f"{self.path} is in use by {owner}. Two runs never write to one folder: wait for that run to end, "
                    f"or choose another --output_dir."
                ) from None
            with explained(self.path):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            _locks.add(file)
            try:
                yield
            finally:
                _locks.discard(file)

    def claim(self, config: RunConfig) -> None:
        """Write the run's description, or check that the folder already belongs to this run.

        Raises:
            UserError: the folder holds another run, or records of unknown origin.
        """
        description = self.path / "run.json"
        if description.exists():
            found = read_description(description)
            if found != config:
                theirs, ours = found.model_dump(), config.model_dump()
                differing = ", ".join(f"{k} {theirs[k]!r} → {v!r}" for k, v in ours.items() if theirs[k] != v)
                raise UserError(
                    f"{self.path} holds another run; it differs in: {differing}. Choose another --output_dir, "
                    f"or remove that folder if you no longer need it."
                )
        elif self.results.exists() or self.checkpoint.exists() or self.done.exists():
            raise UserError(
                f"{self.path} holds results but no run.json, so they are not this run's. Choose another --output_dir."
            )
        else:
            write_atomically(description, json.dumps(config.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint, all or nothing."""
        with atomic(self.checkpoint) as file:
            torch.save({**state, "recorded": self.recorded}, file)

    def restore(self, device: torch.device) -> dict[str, Any] | None:
        """Read the checkpoint and cut the records back to it; `None` starts from the beginning.

        A checkpoint that cannot be read, or whose records are gone, is set aside with a warning: the run starts over
        and its result is the same.

        Raises:
            UserError: a record before the last one cannot be read.
        """
        if not self.checkpoint.exists():
            self._cut_records(0)
            return None
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location=device, weights_only=True)
        except Exception as error:  # torch.load raises many kinds on damaged files
            self._start_over(f"is damaged ({error})")
            return None
        self._cut_records(state["step"])
        if self.recorded != state.get("recorded"):
            self._start_over(f"counts on {state.get('recorded')} records, and {self.results} has {self.recorded}")
            return None
        return state

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record; a line that could not be written whole is taken back.

        Raises:
            UserError: the disk is full.
        """
        size = self.results.stat().st_size if self.results.exists() else 0
        try:
            with explained(self.results), self.results.open("ab") as file:
                file.write((json.dumps(record, sort_keys=True) + "\n").encode())
                flush(file)
        except BaseException:  # only after the file was closed, which writes what is left in the buffer
            if self.results.exists():
                os.truncate(self.results, size)
            raise
        self.recorded += 1

    def finish(self, model: Mapping[str, Any] | None) -> None:
        """Write the final weights (unless `None`), then the `done` marker, then remove what only a restart needs."""
        if model is not None:
            with atomic(self.path / "model.pkl") as file:
                torch.save(dict(model), file)
        write_atomically(self.done, "done")
        self.clean()

    def clean(self) -> None:
        """Remove what only a restart needs."""
        for name in ("checkpoint.pt", "progress.json", *(path.name for path in self.path.glob("*.tmp"))):
            (self.path / name).unlink(missing_ok=True)

    def progress(self, state: Mapping[str, Any]) -> None:
        """Leave a note of how far the run is, for the overview of a sweep."""
        write_atomically(self.path / "progress.json", json.dumps(dict(state)))

    @contextmanager
    def logs(self) -> Iterator[None]:
        """Copy this package's log messages to `out.txt`; warnings, and what ends the run, to `err.txt`."""
        package = logging.getLogger("domainbed_sage")
        handlers = [logging.FileHandler(self.path / name) for name in ("out.txt", "err.txt")]
        handlers[1].setLevel(logging.WARNING)
        level = package.level
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(message)s"))
            package.addHandler(handler)
        package.setLevel(logging.INFO)
        try:
            yield
        except Exception as error:
            if not isinstance(error, Stopped):
                with suppress(OSError), (self.path / "err.txt").open("a") as file:
                    file.write(traceback.format_exc())
            raise
        finally:
            package.setLevel(level)
            for handler in handlers:
                package.removeHandler(handler)
                handler.close()

    def _start_over(self, reason: str) -> None:
        log.warning("%s %s; starting over from step 0.", self.checkpoint, reason)
        self.checkpoint.replace(self.checkpoint.with_suffix(".damaged"))
        self._cut_records(0)

    def _cut_records(self, step: int) -> None:
        """Keep the records before `step`, and count them."""
        found = read_run(self.results) if self.results.exists() else []
        kept = [record for record in found if record.get("step", step) < step]
        content = "".join(json.dumps(record, sort_keys=True) + "\n" for record in kept).encode()
        if self.results.exists() and self.results.read_bytes() != content:
            write_atomically(self.results, content)
        self.recorded = len(kept)


def read_description(path: Path) -> RunConfig:
    """Read a `run.json`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_config(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not a readable description of a run ({error}).") from None
