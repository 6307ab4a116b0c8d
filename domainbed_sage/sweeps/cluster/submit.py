"""Submit the missing runs of a sweep as arrays of Slurm jobs."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CalledProcessError
from typing import TypeVar

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import UserError, counted
from domainbed_sage.core.plugins import loaded_plugins
from domainbed_sage.data import own
from domainbed_sage.sweeps.cluster import ledger, slurm
from domainbed_sage.sweeps.cluster.ledger import Array
from domainbed_sage.sweeps.cluster.site import Site
from domainbed_sage.sweeps.cluster.survey import STATES, Survey, survey
from domainbed_sage.sweeps.cluster.task import Task
from domainbed_sage.sweeps.planning import entry
from domainbed_sage.sweeps.sweep import Planned

T = TypeVar("T")

GRACE_SHARE = 0.6  # of the seconds that Slurm leaves; its clock is coarse
# Until submitit handles it, USR2 would end the job: it is ignored first, and Python inherits that.
PYTHON = f'sh -c \'trap "" USR2; exec "$@"\' sh {shlex.quote(sys.executable)}'
MAX_RESTARTS = 100_000  # after a time-out; each one has made progress


@dataclass(frozen=True)
class Launched:
    """What a launch did.

    Attributes:
        arrays: what was submitted.
        before: where the sweep stood before.
        later: runs that are over the limit of jobs in the queue.
        limit: that limit.
        failed_too: whether failed runs were submitted as well.
    """

    arrays: tuple[Array, ...]
    before: Survey
    later: int
    limit: int
    failed_too: bool

    def __str__(self) -> str:
        jobs = sum(len(array.tasks) for array in self.arrays)
        runs = sum(len(task) for array in self.arrays for task in array.tasks)
        counts = self.before.counts()
        said = ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s] and (not runs or s != "missing"))
        count = f"{counted(jobs, 'job')} ({counted(len(self.arrays), 'array')})"
        submitted = f"Submitted {counted(runs, 'run')} in {count}{f'; before: {said}' if said else ''}."
        lines = [submitted if runs else f"Nothing to submit: {said}."]
        if self.later:
            lines.append(f"{self.later} runs more are over the limit of {self.limit} jobs in the queue: launch later.")
        explained = sum(run.failed and not run.lost for run in self.before.runs)
        if explained and not self.failed_too:
            lines.append(f"{explained} failed with an error: see `sweep status`, fix it, then `sweep retry --failed`.")
        return "\n".join(lines)


def launch(
    name: str,
    runs: Sequence[RunConfig],
    machine: Machine,
    site: Site,
    *,
    device_given: bool = False,
    failed_too: bool = False,
) -> Launched:
    """Submit the runs that are neither done nor in the queue, whoever launched them.

    A run that failed with a reason is left alone unless `failed_too`; one whose job ended without a reason is missing.
    Two launches at the same time wait for one another.

    Args:
        name: of the sweep; names its jobs.
        runs: all runs of the sweep.
        machine: its `output_dir` is the results folder; everything else is the same for all runs.
        site: settings of the jobs.
        device_given: whether the user named the machine's device.
        failed_too: submit failed runs as well.

    Raises:
        UserError: no Slurm, no GPU asked for, too little space, or Slurm refuses the jobs.
    """
    results = machine.output_dir.resolve()
    template = _template(replace(machine, output_dir=results), site, device_given)
    with ledger.locked(results):
        site.require_space(results, "Launching")
        _cancel_orphans(results)
        before = survey([entry(Planned(run.algorithm, run)) for run in runs], results)
        todo = {run.name for run in before.runs if run.state == "missing" or run.lost or (failed_too and run.failed)}
        missing = [run for run in runs if run.folder_name in todo]
        tasks = list(_batches(missing, site.runs_per_job * site.runs_per_gpu))
        room = max(site.max_jobs - before.jobs, 0)
        arrays = []
        allowed = slurm.max_array_size()
        for chunk in _batches(tasks[:room], min(site.max_array or allowed, allowed)):
            with slurm.outside_of_jobs(site.habits()):
                arrays.append(_submit(name, results, site, [replace(template, runs=list(task)) for task in chunk]))
    return Launched(tuple(arrays), before, sum(map(len, tasks[room:])), site.max_jobs, failed_too)


def check_device(site: Site, *, device_given: bool) -> None:
    """Make sure that jobs ask for a GPU, unless the user named a device.

    Raises:
        UserError: they do not.
    """
    if not (site.gres or site.gpus or device_given):
        raise UserError(
            "These jobs would ask for no GPU and train on processors. Say which GPU with --gres (e.g. "
            "gpu:a100_3g.20gb:1) or --gpus 1, or in the site file; or --device cpu if that is what you want."
        )


def _template(machine: Machine, site: Site, device_given: bool) -> Task:
    """The job without its runs."""
    check_device(site, device_given=device_given)
    return Task(
        runs=[],
        machine=machine,
        device_given=device_given,
        at_once=site.runs_per_gpu,
        wants_gpu=bool(site.gres or site.gpus),
        min_free_gb=site.min_free_gb,
        grace_s=GRACE_SHARE * site.signal_delay_s,
        plugins=loaded_plugins(),
        folders=own.loaded(),
    )


def _cancel_orphans(results: Path) -> None:
    """Cancel the jobs of a launcher that died between sbatch and its last note: they have no instructions."""
    orphans = [array.name for array in ledger.read(results) if not array.ids]
    if orphans:
        slurm.cancel(sorted(slurm.queue(orphans)))


def _submit(sweep: str, results: Path, site: Site, tasks: Sequence[Task]) -> Array:
    array = Array(ledger.new_name(sweep), tuple(tuple(run.folder_name for run in task.runs) for task in tasks))
    ledger.write(results, array)
    executor = submitit.SlurmExecutor(ledger.folder(results, array), max_num_timeout=MAX_RESTARTS, python=PYTHON)
    executor.update_parameters(**site.sbatch(array.name))
    try:
        with executor.batch():
            jobs = [executor.submit(task) for task in tasks]
    except (FailedJobError, FailedSubmissionError, CalledProcessError) as error:
        reason = _refusal(ledger.folder(results, array)) or str(error)
        slurm.cancel(sorted(slurm.queue([array.name])))  # a call that timed out may have succeeded all the same
        ledger.forget(results, array)
        raise UserError(
            f"Slurm refuses these jobs: {reason} Asked for: {_asked(site)}. See `sinfo -o '%P %G %c %m %l'` for what "
            f"the partitions have. Nothing of this array was submitted."
        ) from None
    array = replace(array, ids=tuple(job.job_id for job in jobs))
    ledger.write(results, array)
    return array


def _refusal(folder: Path) -> str:
    """Why sbatch refuses the script in a folder, in its own words, which submitit drops."""
    for script in folder.glob(".submission_file_*.sh"):
        try:
            slurm.call("sbatch", "--test-only", str(script))
        except UserError as error:
            return str(error).split("failed: ")[-1].removeprefix("allocation failure: ") + "."
    return ""


def _asked(site: Site) -> str:
    skipped = ("job_name", "setup", "srun_args", "additional_parameters", "signal_delay_s")
    return ", ".join(f"{key}={value}" for key, value in site.sbatch("").items() if key not in skipped)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
