"""What a results folder holds, in the words of a table's footer."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domainbed_sage.results import planned
from domainbed_sage.results.begun import Begun
from domainbed_sage.results.expected import Key, environment_names, every_combination
from domainbed_sage.results.records import RunRecord

_NO_PLAN = (
    f"{planned.FILE} is unreadable: runs that are missing may not be named, and runs of a row with a label of its own "
    "count as settings of their algorithm."
)
_KNOWN_FILES = re.compile(
    r"(table|tasks|predictions|paper|curves|compare)\b.*\.(md|tex|csv|txt|json|png|pdf|svg)|results\.(txt|tex)|plan\.json|index\.json|"
    r"records\.(parquet|npz)|report\.(html|json)|runs\.zip|README\.md|jobs|launch\.lock"
)


@dataclass(frozen=True)
class Loaded:
    """What a results folder holds, or several of them; nothing in it goes unmentioned.

    Attributes:
        records: the runs, by name of their directory.
        unfinished: run directories without a `done` file.
        foreign: entries that are not run directories.
        empty: run directories without a single evaluation.
        tasks: run directories of runs on several tasks, which `task_runs` reads.
        unreadable: run directories whose records cannot be trusted, each with the reason.
        unfinished_included: whether `records` contains the unfinished runs.
        planned: results that the sweeps of the folder plan, see `planned_keys`; None without a readable plan.
        plan_fault: why its `plan.json` is not readable; empty if it is, or there is none.
        folders: the results folder of each run, by name of the run.
        remarks: further sentences for the footer: on what several folders agree, and which part is shown.
        waiting: planned runs among the unfinished, where no other run gives their result.
        unpacked: where the records of packed runs can be read while `load_records` was told to keep them unpacked, by
            name of the run.
    """

    records: tuple[RunRecord, ...]
    unfinished: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    unfinished_included: bool = False
    unreadable: tuple[tuple[str, str], ...] = ()
    planned: tuple[Key, ...] | None = None
    plan_fault: str = ""
    folders: Mapping[str, Path] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    waiting: tuple[Begun, ...] = ()
    unpacked: Mapping[str, Path] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()

    def path(self, run: str) -> Path:
        """The directory of a run."""
        return self.folders[run] / run

    def expected(self) -> list[Key]:
        """The results to expect: those planned, or without a plan every combination of what there is."""
        if self.planned is not None:
            return list(self.planned)
        return every_combination(self.records, environment_names(self.records, (), None))

    @property
    def faults(self) -> list[str]:
        """What is damaged in the folder, one sentence each: runs, which are left out, and the plan."""
        return [*(reason for _, reason in self.unreadable), *([self.plan_fault] if self.plan_fault else [])]

    @property
    def begun(self) -> dict[Key, str]:
        """How far the runs are that results wait for, in words."""
        return {run.key: run.stands for run in self.waiting}

    def notes(self, *, begun_told: bool = False) -> list[str]:
        """Sentences for the footer of a table: the populations, remarks, which entries were left out, and why."""
        return [*populations(self.records), *self.remarks, *self.left_out(begun_told=begun_told)]

    def left_out(self, *, begun_told: bool = False) -> list[str]:
        """Which entries are not in `records`, or are although they are not finished, one sentence each kind.

        Tables written earlier, and the sweep's plan, are not mentioned, nor what is told elsewhere.

        Args:
            begun_told: whether the table is given `begun`, and so names these runs.
        """
        told = {run.name for run in self.waiting if begun_told}
        unfinished = [name for name in self.unfinished if name not in told]
        verb = "Included although not finished" if self.unfinished_included else "Left out, not finished"
        foreign = [name for name in self.foreign if not _KNOWN_FILES.fullmatch(Path(name).name)]
        unreadable = [name for name, _ in self.unreadable]
        stated: list[tuple[str, Sequence[str]]] = [("Left out, unreadable", unreadable), (verb, unfinished)]
        stated += [("On several tasks, with tables of their own", self.tasks)]
        stated += [("Without any evaluation", self.empty), ("Not runs", foreign)]
        return [f"{what}: {shortened(names)}." for what, names in stated if names] + [_NO_PLAN] * bool(self.plan_fault)


def populations(runs: Iterable[RunRecord]) -> list[str]:
    """A sentence for each dataset that has several populations of images: which one the runs are on."""
    variants = sorted({(run.dataset, run.variant) for run in runs if run.variant})
    return [f"{dataset}: population {variant}." for dataset, variant in variants]


def shortened(names: Sequence[str], limit: int = 8) -> str:
    """The first few names and how many there are, for a message."""
    if not names:
        return ""
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} ({', '.join(names[:limit])}{rest})"
