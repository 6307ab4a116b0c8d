"""Small JSON files that a run leaves in its folder for others: its progress, and why it failed."""

from contextlib import suppress
from pathlib import Path

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import write_atomically
from domainbed_sage.results.failures import FAILED, read_note
from domainbed_sage.training import ownership

PROGRESS = "progress.json"
LARGEST_NUMBER = 1e12  # in a note


def note_failure(path: Path, kind: str, reason: str) -> None:
    """Record in a run's folder why it failed, for `sweep status`; skipped where nothing can be written."""
    facts = {"kind": kind, "reason": reason, "by": str(ownership.Owner.this_process())}
    with suppress(OSError, UserError):
        write_atomically(path / FAILED, strict_json.dumps(facts))


def note_refusal(path: Path, error: Exception) -> None:
    """Record an error from before the run owned its folder, unless another process owns it or the run is done."""
    if not any((path / name).exists() for name in ("done", FAILED)) and not ownership.is_held(path / "lock"):
        note_failure(path, type(error).__name__, str(error))


def failed_in(path: Path, job: str) -> bool:
    """Whether this very Slurm job tried the run before and failed with a reason; it would fail again."""
    facts = read_note(path / FAILED)
    return bool(job) and facts.get("kind") != "Killed" and f"(job {job}," in str(facts.get("by"))


def read_progress(folder: Path) -> dict[str, float]:
    """The progress that a run reports: the plausible numbers of the note in its folder."""
    facts = read_note(folder / PROGRESS).items()
    return {key: v for key, v in facts if isinstance(v, int | float) and abs(v) <= LARGEST_NUMBER}
