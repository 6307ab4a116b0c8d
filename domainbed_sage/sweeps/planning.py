"""Turn a sweep file into its runs, once: the results folder keeps them until the file, a plugin or the package changes.

Planning a sweep imports the algorithms and models, and so PyTorch, to check every hyperparameter. What has been planned
is read back in a tenth of a second.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import domainbed_sage
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.plugins import ENTRY_POINTS
from domainbed_sage.results import planned
from domainbed_sage.results.planned import Plan, PlannedRun
from domainbed_sage.sweeps.name import read_document, read_name

if TYPE_CHECKING:
    from domainbed_sage.sweeps.sweep import Planned


@dataclass(frozen=True)
class SweepFile:
    """A sweep file before its runs are made.

    Attributes:
        path: of the file.
        name: of the sweep.
        fingerprint: hash of everything that decides which runs it stands for: the file, its plugins, the plugins given
            on the command line, those of installed packages, and the source code of this package.
    """

    path: Path
    name: str
    fingerprint: str


def glance(path: Path, plugins: Sequence[Path] = ()) -> SweepFile | None:
    """Name and fingerprint of a sweep file; `None` if it is not one, which `sweep.read_sweep` explains."""
    try:
        name, values = read_name(path), read_document(path).values()
        files = [path, *(path.parent / str(plugin) for plugin in values.get("plugins") or ()), *plugins]
        parts = [file.read_bytes() for file in files]
    except (UserError, OSError, TypeError):
        return None
    return SweepFile(path, name, _hash([*parts, *_installed(), _source()]))


def kept(sweep: SweepFile, results: Path) -> tuple[PlannedRun, ...] | None:
    """The runs that the results folder keeps for this very sweep file; `None` if it does not."""
    plan = planned.read(results).get(sweep.name)
    return plan.runs if plan is not None and plan.fingerprint == sweep.fingerprint else None


def keep(sweep: SweepFile, runs: Iterable["Planned"], results: Path) -> tuple[PlannedRun, ...]:
    """Write the runs of a sweep into its results folder, and return them as they are kept."""
    entries = tuple(entry(run) for run in runs)
    planned.write(results, sweep.name, Plan(sweep.fingerprint, entries))
    return entries


def entry(planned_run: "Planned") -> PlannedRun:
    """What the plan keeps of a run."""
    label, run = planned_run
    return PlannedRun(run.folder_name, label, run.dataset, run.algorithm, run.test_envs, run.trial_seed, run.steps)


def _installed() -> Iterator[bytes]:
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        yield f"{point.value} {point.dist.version if point.dist else ''}".encode()


def _source() -> bytes:
    """The version, and a hash of this package's code: in a checkout the code changes and the version does not."""
    package = Path(domainbed_sage.__file__).parent
    files = sorted(
        Path(folder) / name for folder, _, names in os.walk(package) for name in names if name.endswith(".py")
    )
    return domainbed_sage.__version__.encode() + _hash(file.read_bytes() for file in files).encode()


def _hash(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()
