"""What sweeps plan for a results folder: `<results>/plan.json`, one entry for each sweep, read without PyTorch.

`sweep list`, `status`, `logs` and `cancel` read the runs from it as long as the sweep is the one that was planned, and
`table` names the planned runs that are missing.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError, shown
from domainbed_sage.core.files import write_atomically

FILE = "plan.json"
VERSION = 2
MOST_ENVS = 1000  # environments of a data set
FORMER = ""  # stands for the sweep in a file of version 0.1.0, which says neither its name nor its folders


@dataclass(frozen=True)
class PlannedRun:
    """What a sweep's overview needs to know about a run.

    Attributes:
        folder_name: name of its folder.
        label: its row of the table.
        dataset, algorithm: their names.
        test_envs: indices of the held-out environments.
        trial_seed: number of the trial.
        steps: training steps.
    """

    folder_name: str
    label: str
    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    trial_seed: int
    steps: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """The result that it is a setting of, see `expected.Key`; by the first environment that it holds out."""
        return self.dataset, self.label, self.test_envs[0], self.trial_seed


@dataclass(frozen=True)
class Plan:
    """The runs of one sweep, and the fingerprint of what they were planned from."""

    fingerprint: str
    runs: tuple[PlannedRun, ...]


def read(results: Path) -> dict[str, Plan]:
    """The plans kept in a results folder, by name of the sweep; none without the file.

    Raises:
        UserError: the file is damaged.
    """
    path = results / FILE
    try:
        facts = strict_json.loads(path.read_bytes())
        if isinstance(facts, list):
            return {FORMER: Plan("", tuple(_former(*key) for key in facts))}
        if facts["version"] != VERSION:
            raise ValueError(f"version {facts['version']} in place of {VERSION}")
        return {name: _plan(entry) for name, entry in facts["sweeps"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a readable plan ({type(error).__name__}: {error}). It names the runs that are missing. "
            f"Remove it, and repeat `domainbed-sage sweep list FILE` for each sweep of this folder to write it again."
        ) from None


def labels(results: Path) -> dict[str, str]:
    """The row of the table that each planned run belongs to, by name of its folder.

    Raises:
        UserError: the file is damaged.
    """
    return {run.folder_name: run.label for plan in read(results).values() for run in plan.runs}


def write(results: Path, sweep: str, plan: Plan) -> None:
    """Keep the plan of one sweep; those of other sweeps in the same folder stay.

    Raises:
        UserError: the folder cannot be written to, or its `plan.json` is damaged.
    """
    plans = read(results)
    if plans.get(sweep) == plan:
        return
    entries = {name: _entry(kept) for name, kept in (plans | {sweep: plan}).items() if name != FORMER}
    write_atomically(results / FILE, strict_json.dumps({"version": VERSION, "sweeps": entries}))


def _entry(plan: Plan) -> dict[str, Any]:
    return {"fingerprint": plan.fingerprint, "runs": [astuple(run) for run in plan.runs]}


def _plan(entry: dict[str, Any]) -> Plan:
    return Plan(str(entry["fingerprint"]), tuple(_run(*row) for row in entry["runs"]))


def _former(dataset: str, algorithm: str, test_envs: Sequence[int], trial_seed: int) -> PlannedRun:
    return _run("", algorithm, dataset, algorithm, test_envs, trial_seed, 0)


def _run(
    folder_name: str, label: str, dataset: str, algorithm: str, test_envs: Sequence[int], trial_seed: int, steps: int
) -> PlannedRun:
    texts, numbers = (folder_name, label, dataset, algorithm), (*test_envs, trial_seed, steps)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise ValueError(f"a run of the wrong types: {shown(folder_name)}")
    if not all(0 <= env < MOST_ENVS for env in test_envs):
        raise ValueError(f"a run that holds out environments {shown(list(test_envs))}")
    return PlannedRun(folder_name, label, dataset, algorithm, tuple(test_envs), trial_seed, steps)
