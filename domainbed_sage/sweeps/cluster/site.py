"""A cluster's settings: from a site file, and from the command line."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from domainbed_sage.core import files, yaml_file
from domainbed_sage.core.settings import checked

Positive = Annotated[int, Field(ge=1)]
Minutes = Annotated[int, Field(ge=1, description="a whole number of minutes ≥ 1, e.g. 240")]
Seconds = Annotated[float, Field(gt=0, description="a number of seconds > 0, e.g. 30")]


class Site(BaseModel):
    """What a job requests from Slurm, and what a site allows.

    Attributes:
        partition, account, qos, constraint: as for sbatch.
        gres: e.g. ``gpu:a100_3g.20gb:1``, one MIG slice.
        gpus: whole GPUs per job, in place of `gres`.
        timeout_min: time limit of a job, minutes; a run continues in the next one.
        mem_gb: memory of a job.
        cpus: processor cores of a job; its runs share them.
        parallelism: jobs of an array that run at the same time.
        setup: shell commands before the job, e.g. ``module load cuda``.
        runs_per_job: runs of one job, one after the other.
        runs_per_gpu: runs of one job at the same time.
        signal_delay_s: seconds before the time limit at which Slurm asks for a checkpoint.
        max_array: jobs in one array; by default what the cluster's MaxArraySize allows.
        max_jobs: jobs that one launch leaves in the queue; the rest is left for the next launch.
        min_free_gb: space that must be free in the results folder, GB, before anything is started.
        save_every_s: seconds between checkpoints of a run.
        look_every_s: seconds between notes of a run's progress.
        extra: further options of sbatch, e.g. ``{"reservation": "gpu-day"}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    gpus: Positive | None = None
    timeout_min: Minutes = 240
    mem_gb: Annotated[float, Field(gt=0, description="a number of GB > 0, e.g. 32")] = 32
    cpus: Positive = 8
    parallelism: Positive = 256
    setup: Annotated[list[str], Field(description="a list of shell commands, each a text")] = []
    runs_per_job: Positive = 1
    runs_per_gpu: Positive = 1
    signal_delay_s: Annotated[int, Field(ge=1, description="a whole number of seconds ≥ 1, e.g. 120")] = 120
    max_array: Positive | None = None
    max_jobs: Positive = 1000
    min_free_gb: Annotated[float, Field(ge=0, description="a number of GB ≥ 0, e.g. 5")] = 5
    save_every_s: Seconds = 600
    look_every_s: Seconds = 30
    extra: Annotated[
        dict[str, str | int | float | bool], Field(description="a mapping from options of sbatch to their values")
    ] = {}

    @model_validator(mode="after")
    def _leaves_time_to_begin(self) -> "Site":
        if 60 * self.timeout_min < self.signal_delay_s + 60:
            raise ValueError(
                f"timeout_min {self.timeout_min} should be at least a minute more than signal_delay_s "
                f"{self.signal_delay_s}: otherwise Slurm asks for a checkpoint before the run has begun"
            )
        return self

    def require_space(self, results: Path, what: str) -> None:
        """Check that `min_free_gb` are free; see `require_free`."""
        require_free(results, self.min_free_gb, what)

    def habits(self) -> set[str]:
        """The user's variables for sbatch that may decide what these settings leave open, e.g. ``SBATCH_ACCOUNT``."""
        open_ = [key for key in ("account", "partition", "qos") if getattr(self, key) is None and key not in self.extra]
        return {f"SBATCH_{key.upper()}" for key in open_}

    def sbatch(self, name: str) -> dict[str, Any]:
        """submitit's parameters of an array of this name."""
        wanted = {
            "job_name": name,
            "time": self.timeout_min,
            "mem": f"{round(self.mem_gb * 1024)}M",
            "cpus_per_task": self.cpus,
            "srun_args": [f"--cpus-per-task={self.cpus}"],  # Slurm 22.05 and later: srun does not inherit it
            "gpus_per_node": self.gpus,
            "array_parallelism": self.parallelism,
            "signal_delay_s": self.signal_delay_s,
            "setup": self.setup or None,
            "additional_parameters": {"requeue": True, **self.extra},
            **{key: getattr(self, key) for key in ("partition", "account", "qos", "constraint", "gres")},
        }
        return {key: value for key, value in wanted.items() if value is not None}


def require_free(results: Path, gigabytes: float, what: str) -> None:
    """Check that there is space in a results folder before `what` starts anything.

    Raises:
        NoSpace: there is too little.
    """
    advice = (
        "Nothing was started and no record is lost: free some space and launch again, or ask for less with "
        "--min-free-gb."
    )
    files.require_space(results, 1e9 * gigabytes, what, advice)


PLACE = "~/.config/domainbed-sage/cluster.yaml"  # as shown in the help, for every user


def default_file() -> Path:
    """The site file's default path; without a home there is none."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "domainbed-sage"
    try:
        return folder.expanduser() / "cluster.yaml"
    except RuntimeError:  # no HOME, and the system does not know the user
        return folder / "cluster.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare one option for every setting but `extra`; an option wins over the site file."""
    group = parser.add_argument_group("slurm", "settings of the jobs; all of them can be given in the site file")
    group.add_argument("--site", type=Path, help=f"site file (default: {PLACE}, if it exists)")
    for name in ("partition", "account", "qos", "constraint", "gres"):
        group.add_argument(f"--{name}", help="as for sbatch")
    for name, what in (
        ("gpus", "GPUs per job"),
        ("timeout-min", "time limit of a job, minutes"),
        ("cpus", "processor cores of a job"),
        ("parallelism", "jobs of an array that run at the same time"),
        ("runs-per-job", "runs of a job, one after the other"),
        ("runs-per-gpu", "runs of a job at the same time"),
        ("signal-delay-s", "seconds before the time limit for the last checkpoint"),
        ("max-array", "jobs in one array"),
        ("max-jobs", "jobs to leave in the queue"),
    ):
        group.add_argument(f"--{name}", type=int, help=f"{what} (default: {_default(name)})")
    for name, what in (
        ("mem-gb", "memory of a job, GB"),
        ("min-free-gb", "space that must be free in the results folder, GB"),
        ("save-every-s", "seconds between checkpoints"),
        ("look-every-s", "seconds between notes of the progress"),
    ):
        group.add_argument(f"--{name}", type=float, help=f"{what} (default: {_default(name)})")
    group.add_argument("--setup", action="append", help="shell command before the job; repeatable")


def from_arguments(args: argparse.Namespace) -> Site:
    """The settings of the site file, with those of the command line over them.

    Raises:
        UserError: the file is missing, is not YAML, or has mistakes.
    """
    path = args.site or default_file()
    document = yaml_file.read(path, "Site file", "`partition:`, `gres:`", optional=not args.site)
    values = document.values()
    extra = document.entries.get("extra")
    if extra and isinstance(extra.value, dict):  # command-line strings: a reservation 0123 is not 123
        values["extra"] = {key: node.as_written() for key, node in extra.value.items()}
    given = {name: getattr(args, name) for name in Site.model_fields if getattr(args, name, None) is not None}
    in_file = {key: node for key, node in document.entries.items() if key not in given}
    return checked(
        Site, {**values, **given}, f"the settings of the cluster ({path})", replace(document, entries=in_file)
    )


def _default(name: str) -> Any:
    return Site.model_fields[name.replace("-", "_")].default
