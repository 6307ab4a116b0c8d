"""Runs that failed, grouped by cause, and what to do about each."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from domainbed_sage.core import strict_json

FAILED = "failed.json"
ADVICE = (  # in order: the first whose pattern is found
    (r"GPU's memory|CUDA out of memory|OutOfMemoryError", "a larger slice, fewer runs on it, or a smaller batch_size"),
    (r"OUT_OF_ME|out of memory|machine's memory", "ask for more memory (--mem-gb), or start fewer processes at a time"),
    (r"/dev/shm|TMPDIR|ulimit", "do what the message says, then `sweep retry --failed`"),
    (r"No space|NoSpace|needs .* GB free", "free space in the results folder, then `sweep retry --failed`"),
    (r"not finite", "the run diverged: a lower lr or a smaller radius; that is another run"),
    (r"TIMEOUT", "no checkpoint was saved in time: raise --signal-delay-s, then launch again"),
    (r"CANCELLED|NODE_FAIL|PREEMPTED|lost", "launch again: it continues from its checkpoint"),
    (r"weights (download|check)|--data_dir", "get what the message names, then `sweep retry --failed`"),
)
OTHERWISE = "read its log (`sweep logs`), fix the cause, then `sweep retry --failed`"


class Failed(Protocol):
    """A run that failed: name of its folder, dataset, row of the table, a word for the error, and its message."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def dataset(self) -> str: ...  # noqa: D102
    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102


AnyFailed = TypeVar("AnyFailed", bound=Failed)


@dataclass(frozen=True)
class Failure:
    """See `Failed`."""

    name: str
    dataset: str
    label: str
    kind: str
    reason: str


def read_note(path: Path) -> dict[str, Any]:
    """A small JSON file that a run leaves for others; empty if there is none, or it is damaged."""
    try:
        facts = strict_json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return dict(facts) if isinstance(facts, dict) else {}


def by_cause(runs: Iterable[AnyFailed]) -> list[list[AnyFailed]]:
    """The runs grouped by cause, the most frequent first."""
    causes: defaultdict[tuple[str, str], list[AnyFailed]] = defaultdict(list)
    for run in runs:
        causes[run.kind, _alike(run)].append(run)
    return sorted(causes.values(), key=len, reverse=True)


def cause(run: Failed) -> str:
    """One line; the type of a `UserError` is left out, because it says nothing."""
    reason = run.reason.partition("\n")[0]
    return reason if run.kind == "UserError" or reason.startswith(run.kind) else f"{run.kind}: {reason}"


def _alike(run: Failed) -> str:
    """The reason without names, paths and numbers, which differ between runs that fail for the same reason."""
    text = run.reason.partition("\n")[0]
    for name in filter(None, (run.name, run.dataset, run.label)):
        text = text.replace(name, "…")
    return re.sub(r"\S*/\S*|\d[\d.e+-]*", "…", text)[:200]


def advice(run: Failed) -> str:
    """What to do about a failure."""
    text = f"{run.kind} {run.reason}"
    return next((what for pattern, what in ADVICE if re.search(pattern, text)), OTHERWISE)
