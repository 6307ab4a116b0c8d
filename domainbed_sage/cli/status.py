"""`domainbed-sage sweep status` and `logs`: where a sweep stands, as wide as the terminal."""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from domainbed_sage.cli.numbers import whole
from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError, counted
from domainbed_sage.results import failures
from domainbed_sage.results.planned import PlannedRun
from domainbed_sage.sweeps.cluster.survey import STATES, RunState, Survey, survey

LOOK_AGAIN_S = 30
HEADS = ("done", "run", "queue", "fail", "miss")
BAR = 20
SIGNS = {"done": "█", "running": "▓", "queued": "▒", "failed": "x", "missing": "·"}
STYLES = {"done": "green", "running": "cyan", "queued": "yellow", "failed": "red", "missing": "bright_black"}
TAIL = 3
MOST_CAUSES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `status`."""
    parser.add_argument(
        "--watch",
        type=whole(1, 86_400),
        nargs="?",
        const=LOOK_AGAIN_S,
        metavar="S",
        help=f"look again every S s ({LOOK_AGAIN_S})",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--exit-code",
        action="store_true",
        help="exit status: 0 all runs are done, 1 some failed, 3 others run, wait or are missing; --watch then ends "
        "when none runs or waits",
    )


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `list`."""
    parser.add_argument("--state", choices=STATES, action="append", help="only runs in this state; repeatable")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `logs`."""
    parser.add_argument("run", help="name of the run's folder, or a part of it that no other has")
    parser.add_argument(
        "-n", "--lines", type=whole(1), default=30, help="last lines of each file (default: %(default)s)"
    )


def show(name: str, runs: Sequence[PlannedRun], folder: Path, args: argparse.Namespace) -> int:
    """Print the status of the sweep, once or repeatedly; return the exit status."""
    console = Console(highlight=False, soft_wrap=args.json)
    while True:
        found = survey(runs, folder, patient=True)
        if args.watch and console.is_terminal:
            console.clear()
        if args.json:
            print(as_json(found), flush=True)
        else:
            console.print(render(name, folder, found, runs))
        counts = found.counts()
        if not args.watch or (args.exit_code and not counts["running"] + counts["queued"]):
            return exit_code(counts) if args.exit_code else 0
        time.sleep(args.watch)


def exit_code(counts: Mapping[str, int]) -> int:
    """Exit status of ``status --exit-code``: 0 all are done, 1 some failed, 3 there is something left to run."""
    if counts.get("failed"):
        return 1
    return 3 if any(counts.get(state) for state in ("running", "queued", "missing")) else 0


def list_runs(runs: Sequence[PlannedRun], folder: Path, args: argparse.Namespace) -> None:
    """Print every run and its state, or those in the wanted states; why a run failed is in the JSON."""
    states = survey(runs, folder, patient=True).runs
    pairs = [(run, state) for run, state in zip(runs, states, strict=True) if state.state in (args.state or STATES)]
    if args.json:
        print(strict_json.dumps([asdict(run) | {"state": state.state, "reason": state.reason} for run, state in pairs]))
        return
    width = max((len(run.folder_name) for run, _ in pairs), default=0)
    for run, state in pairs:
        print(f"{run.folder_name:<{width}}  {state.state}")
    counts = Counter(state.state for _, state in pairs)
    summed = ", ".join(f"{n} {state}" for state, n in counts.items())
    print(counted(len(pairs), "run") + (f": {summed}" if pairs else ""))


def as_json(found: Survey) -> str:
    """The whole survey, machine-readable."""
    runs = [{**asdict(run), "log": str(run.log) if run.log else None} for run in found.runs]
    counts = {state: found.counts()[state] for state in STATES}
    facts = {"counts": counts, "jobs": found.jobs, "waiting": dict(found.waiting), "trouble": found.trouble}
    return strict_json.dumps({**facts, "runs": runs})


def render(name: str, folder: Path, found: Survey, runs: Sequence[PlannedRun]) -> RenderableType:
    """A bar for each dataset and algorithm, the estimated end, why jobs wait, and the failures by cause."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="")
    table.add_column("dataset", no_wrap=True)
    table.add_column("algorithm", no_wrap=True)
    table.add_column("", min_width=BAR, no_wrap=True)
    for head in HEADS:
        table.add_column(head, justify="right", min_width=5, no_wrap=True)
    groups: defaultdict[tuple[str, str], list[RunState]] = defaultdict(list)
    for run in found.runs:
        groups[run.dataset, run.label].append(run)
    shown = ""
    for (dataset, label), members in groups.items():
        _add_row(table, dataset if dataset != shown else "", label, members)
        shown = dataset
    _add_row(table, "all", "", found.runs)
    title = Text(f"{name}: {counted(len(found.runs), 'run')} in {folder}")
    legend = Text("  ").join(Text.assemble((SIGNS[state], STYLES[state]), f" {state}") for state in STATES)
    rest = [*_remarks(found, runs), *_failures(found.runs)]
    return Group(title, table, legend, *map(Text, rest))


def logs(runs: Sequence[PlannedRun], folder: Path, args: argparse.Namespace) -> None:
    """Print the last lines of the logs of a run and its job.

    Raises:
        UserError: the name matches no run, or several.
    """
    names = [run.folder_name for run in runs]
    fitting = [name for name in names if name == args.run] or [name for name in names if args.run in name]
    if len(fitting) != 1:
        some = ", ".join((fitting or names)[:5])
        raise UserError(f"{args.run!r} should name one run of the sweep. It fits {len(fitting)}; for example: {some}.")
    config = next(run for run in runs if run.folder_name == fitting[0])
    (state,) = survey([config], folder, patient=True).runs
    print(f"{state.name}: {state.state}{f', job {state.job}' if state.job else ''}")
    files = [folder / state.name / "out.txt", folder / state.name / "err.txt"]
    files += sorted((folder / "jobs").glob(f"*/{state.job}_*_log.*")) if state.job else []
    for path in files:
        print(f"\n==> {path} <==\n" + "\n".join(_tail(path, args.lines) or ["(nothing)"]))


def _add_row(table: Table, dataset: str, label: str, runs: Sequence[RunState]) -> None:
    counts = Counter(run.state for run in runs)
    ends = [round(BAR * sum(counts[state] for state in STATES[: i + 1]) / len(runs)) for i in range(len(STATES))]
    starts = [0, *ends[:-1]]
    bar = Text.assemble(*((SIGNS[s] * (b - a), STYLES[s]) for s, a, b in zip(STATES, starts, ends, strict=True)))
    table.add_row(Text(dataset), Text(label), bar, *(str(counts[state] or "") for state in STATES))


def _remarks(found: Survey, runs: Sequence[PlannedRun]) -> list[str]:
    remarks = []
    if left := time_left(found, runs):
        remarks.append(f"About {left / 3600:.1f} hours left at the pace of the runs that run now.")
    if found.waiting:
        remarks.append(
            "Jobs wait: " + ", ".join(f"{n} {reason}" for reason, n in Counter(found.waiting).most_common(4))
        )
    if found.trouble:
        remarks.append(f"Slurm could not be asked, so queued and lost runs cannot be distinguished: {found.trouble}")
    return remarks


def time_left(found: Survey, runs: Sequence[PlannedRun]) -> float | None:
    """Seconds until all runs are done, with as many at a time as now, at their pace; None if none is active."""
    steps = {run.folder_name: run.steps for run in runs}
    active = [run for run in found.runs if run.state == "running" and run.progress.get("seconds_per_step")]
    if not active:
        return None
    pace = {run.label: run.progress["seconds_per_step"] for run in active}
    typical = fmean(pace.values())
    work = 0.0
    for run in found.runs:
        if run.state in ("running", "queued", "missing"):
            work += (steps[run.name] - run.progress.get("step", 0)) * pace.get(run.label, typical)
    return work / len(active)


def _failures(runs: Iterable[RunState]) -> list[str]:
    """Failures grouped by cause: how many, one of them with the end of its log, and what to do."""
    lines: list[str] = []
    groups = failures.by_cause(run for run in runs if run.failed)
    for members in groups[:MOST_CAUSES]:
        first = members[0]
        lines += ["", f"{len(members)} failed: {_short(failures.cause(first), 66)}"]
        lines += [f"  for example {first.name}"]
        lines += [f"    | {_short(line, 72)}" for line in (_tail(first.log, TAIL) if first.log else [])]
        lines += [f"  → {failures.advice(first)}"]
    if len(groups) > MOST_CAUSES:
        lines += [
            "",
            f"{sum(map(len, groups[MOST_CAUSES:]))} more for {len(groups) - MOST_CAUSES} other causes: --json",
        ]
    return lines


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _tail(path: Path, lines: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 20_000, 0))
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()][-lines:]
    except OSError:
        return []
