"""The folder of one run: its lock, its description, its records, its checkpoint, and the `done` marker."""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from domainbed_sage.config import RunConfig, read_config
from domainbed_sage.errors import UserError
from domainbed_sage.files import atomic, explained, flush, write_atomically

log = logging.getLogger(__name__)


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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder inside the block; the kernel releases the lock when the process ends, however it ends.

        Raises:
            UserError: another process owns it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise UserError(
                    f"{self.path} is in use by {owner}. Two runs never write to one folder: wait for that run to end, "
                    f"or choose another --output_dir."
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

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
        elif self.results.exists() or self.done.exists():
            raise UserError(
                f"{self.path} holds results but no run.json, so they are not this run's. Choose another --output_dir."
            )
        else:
            write_atomically(description, json.dumps(config.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint, all or nothing."""
        with atomic(self.checkpoint) as file:
            torch.save(dict(state), file)

    def restore(self, device: torch.device) -> dict[str, Any] | None:
        """Read the checkpoint and cut the records back to it; `None` starts from the beginning.

        A checkpoint that cannot be read is set aside with a warning: the run starts over and its result is the same.
        """
        state: dict[str, Any] | None = None
        if self.checkpoint.exists():
            try:
                state = torch.load(self.checkpoint, map_location=device, weights_only=True)
            except Exception as error:  # torch.load raises many kinds on damaged files
                log.warning("%s is damaged (%s); starting over from step 0.", self.checkpoint, error)
                self.checkpoint.replace(self.checkpoint.with_suffix(".damaged"))
        self._cut_records(state["step"] if state else 0)
        return state

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record; a line that could not be written whole is taken back."""
        with self.results.open("ab") as file:
            size = file.tell()
            try:
                with explained(self.results):
                    file.write((json.dumps(record, sort_keys=True) + "\n").encode())
                    flush(file)
            except UserError:
                os.truncate(self.results, size)
                raise

    def finish(self, model: Mapping[str, Any] | None) -> None:
        """Write the final weights (unless `None`), then the `done` marker, then remove what only a restart needs."""
        if model is not None:
            with atomic(self.path / "model.pkl") as file:
                torch.save(dict(model), file)
        write_atomically(self.done, "done")
        self.clean()

    def clean(self) -> None:
        """Remove what only a restart needs."""
        for name in ("checkpoint.pt", "checkpoint.pt.tmp", "model.pkl.tmp", "progress.json"):
            (self.path / name).unlink(missing_ok=True)

    def progress(self, state: Mapping[str, Any]) -> None:
        """Leave a note of how far the run is, for the overview of a sweep."""
        write_atomically(self.path / "progress.json", json.dumps(dict(state)))

    @contextmanager
    def logs(self) -> Iterator[None]:
        """Copy this package's log messages to `out.txt`, warnings and errors also to `err.txt`."""
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
        except Exception:
            package.exception("The run stopped with an error.")
            raise
        finally:
            package.setLevel(level)
            for handler in handlers:
                package.removeHandler(handler)
                handler.close()

    def _cut_records(self, step: int) -> None:
        if not self.results.exists():
            return
        lines = self.results.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] < step]
        if len(kept) < len(lines):
            log.info("Records after step %d are written again.", step)
            write_atomically(self.results, b"".join(kept))


def read_description(path: Path) -> RunConfig:
    """Read a `run.json`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read_config(json.loads(path.read_text()))
    except ValueError as error:
        raise UserError(f"{path} is not a readable description of a run ({error}).") from None
