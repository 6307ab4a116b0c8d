"""Everything that the sections of a report are made of."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from domainbed_sage.core.errors import UserError, known
from domainbed_sage.results import compare, packed, planned, tables
from domainbed_sage.results.compare import Comparison
from domainbed_sage.results.expected import environment_names
from domainbed_sage.results.failures import FAILED, Failure, read_note
from domainbed_sage.results.joined import load_folders
from domainbed_sage.results.loaded import Loaded
from domainbed_sage.results.records import RESULTS, RunRecord
from domainbed_sage.results.report import measures
from domainbed_sage.results.report.measures import Measured
from domainbed_sage.results.selection import METHODS
from domainbed_sage.results.tables import AVERAGE, Table

USUAL_REFERENCE = "ERM"


@dataclass(frozen=True)
class Wanted:
    """What a report is asked for.

    Attributes:
        reference: row that all are compared with; by default ERM if it is there, otherwise the first.
        compared: rows whose comparison with the reference was declared before the results were seen.
        selection: model selection method.
        with_paper: whether to show the paper's numbers beside ours.
        command: how the report was asked for.
    """

    reference: str = ""
    compared: tuple[str, ...] = ()
    selection: str = "training-domain"
    with_paper: bool = False
    command: str = ""


@dataclass(frozen=True, eq=False)
class Gathered:
    """What is known about the runs.

    Attributes:
        wanted: what was asked for, with the reference filled in; empty if there is only one row with results.
        folders: the results folders.
        loaded: their runs.
        names: environment names of each dataset.
        tables: the tables of every model selection method.
        against: every other row compared with the reference; None without one.
        declared: the comparisons that were declared; None if none were.
        from_best: every other row compared with the one of the highest average; None without one.
        failures: runs that failed.
        measured: further numbers of every run, by its place in `loaded.records`.
        newest: when the last record was written, UTC.
    """

    wanted: Wanted
    folders: tuple[Path, ...]
    loaded: Loaded
    names: Mapping[str, Sequence[str]]
    tables: Mapping[str, Table]
    against: Comparison | None
    declared: Comparison | None
    from_best: Comparison | None
    failures: tuple[Failure, ...]
    measured: tuple[Measured, ...]
    newest: datetime

    @property
    def table(self) -> Table:
        """The tables of the selection that was asked for."""
        return self.tables[self.wanted.selection]

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The runs."""
        return self.loaded.records


def gather(folders: Sequence[Path], wanted: Wanted) -> Gathered:
    """Read results folders, select by every method, and compare.

    Raises:
        UserError: a folder holds no runs or contradictory ones, no run suits the selection, or a row that was named
            has no results.
    """
    with ExitStack() as unpacked:
        loaded = load_folders(folders, unpacked=unpacked)
        places = {**{run.name: loaded.path(run.name) for run in loaded.records}, **loaded.unpacked}
        measured = tuple(measures.read(places[run.name], run) for run in loaded.records)
    built = {
        name: tables.build(loaded.records, name, expected=loaded.planned, notes=loaded.notes()) for name in METHODS
    }
    table = built[wanted.selection]
    rows = with_results(table)
    if not rows:
        raise UserError(
            f"Nothing can be reported by {table.method.title}, which needs {table.method.needs}. "
            "Choose another --selection."
        )
    reference = _reference(wanted, rows)
    filled = Wanted(reference, wanted.compared, wanted.selection, wanted.with_paper, wanted.command)
    best = next(iter(ranked(table)), "")
    against = _compared(table, reference, rows, folders)
    return Gathered(
        filled,
        tuple(folders),
        loaded,
        environment_names(loaded.records, loaded.planned or (), None),
        built,
        against,
        compare.compare(table, reference, wanted.compared, folders) if wanted.compared else None,
        against if best == reference else _compared(table, best, rows),
        tuple(failed(folders)),
        measured,
        _newest(loaded),
    )


def with_results(table: Table) -> list[str]:
    """The rows of a table that have any result, in its order."""
    there = set(table.results["algorithm"])
    return [str(name) for name in table.averages.cells.index if name in there]


def ranked(table: Table) -> list[str]:
    """The rows whose average is complete, the highest first; in the table's order on ties."""
    means = table.averages.means[AVERAGE].dropna()
    return [str(name) for name in means.sort_values(ascending=False, kind="stable").index]


def _reference(wanted: Wanted, rows: Sequence[str]) -> str:
    for name in (wanted.reference, *wanted.compared):
        if name and name not in rows:
            raise UserError(f"There is no result of {name} to compare. {known(rows)}.")
    others = [name for name in rows if name not in wanted.compared] if wanted.compared else rows
    usual = USUAL_REFERENCE if USUAL_REFERENCE in others else next(iter(others), rows[0])
    reference = wanted.reference or usual
    if reference in wanted.compared:
        raise UserError(f"{reference} cannot be compared with itself. Name another --reference. {known(rows)}.")
    return reference if len(rows) > 1 else ""


def _compared(table: Table, reference: str, rows: Sequence[str], folders: Sequence[Path] = ()) -> Comparison | None:
    others = [name for name in rows if name != reference]
    return compare.compare(table, reference, others, folders) if reference and others else None


def failed(folders: Sequence[Path]) -> list[Failure]:
    """The runs that are not done and left a note why they failed, by name of their folder."""
    found = []
    for folder in folders:
        runs = {run.folder_name: run for plan in _plans(folder) for run in plan.runs}
        for note in sorted(folder.glob(f"*/{FAILED}")):
            name, facts = note.parent.name, read_note(note)
            if facts and not (note.parent / "done").exists():
                dataset, label = (runs[name].dataset, runs[name].label) if name in runs else ("", "")
                found.append(Failure(name, dataset, label, str(facts.get("kind", "")), str(facts.get("reason", ""))))
    return found


def _plans(folder: Path) -> Sequence[planned.Plan]:
    try:
        return list(planned.read(folder).values())
    except UserError:  # `Loaded.faults` says it
        return []


def _newest(loaded: Loaded) -> datetime:
    """When the last record was written; of packed ones, when they were packed."""
    written = set()
    for run in loaded.records:
        file = loaded.path(run.name) / RESULTS
        written.add((file if file.exists() else loaded.folders[run.name] / packed.FILE).stat().st_mtime)
    return datetime.fromtimestamp(max(written), UTC)
