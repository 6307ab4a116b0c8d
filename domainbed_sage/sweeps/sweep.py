"""A sweep file, and the runs it stands for."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from domainbed_sage.config import Evaluation, RunConfig, environment_indices, make_config
from domainbed_sage.core.errors import UserError, raise_all
from domainbed_sage.core.plugins import load_plugin
from domainbed_sage.core.seeding import seed_hash
from domainbed_sage.data.specs import datasets
from domainbed_sage.geometry.perturb import Precision

PositiveInt = Annotated[int, Field(ge=1)]


class Schedule(BaseModel):
    """Settings that may differ between datasets; `None` takes the value for all, or the dataset's own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    steps: PositiveInt | None = None
    checkpoint_freq: PositiveInt | None = None
    hparams: dict[str, Any] = {}


class Sweep(Schedule):
    """What a sweep file may say.

    Attributes:
        name: names the results folder, ``results/<name>``.
        datasets: each dataset, with the settings that differ from those for all.
        algorithms: each algorithm, with its own hyperparameters.
        test_envs: ``single`` holds out each environment in turn; ``pairs`` each one and each pair, which
            leave-one-domain-out selection needs (DomainBed's own sweep); or a list of lists of environments.
        trials: number of trials; trial t has trial_seed t.
        n_hparams: number of hyperparameter settings; the first is the default, the others are random.
        optimizer: base optimiser.
        precision: arithmetic.
        evaluation: ``lazy`` or ``full``, see `RunConfig`; by default lazy, and full with pairs of held-out
            environments, because leave-one-domain-out selection reads every evaluation.
        holdout_fraction: share of the out splits.
        plugins: Python files to load first, relative to the sweep file.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    datasets: dict[str, Schedule | None]
    algorithms: dict[str, dict[str, Any] | None]
    test_envs: Literal["single", "pairs"] | list[list[int | str]] = "single"
    trials: PositiveInt = 3
    n_hparams: PositiveInt = 1
    optimizer: str = "adam"
    precision: Precision = "fp32"
    evaluation: Evaluation | None = None
    holdout_fraction: float = 0.2
    plugins: list[str] = []

    def runs(self) -> list[RunConfig]:
        """All runs, every trial of the first dataset first.

        Raises:
            UserError: lists every mistake in the file.
        """
        configs: list[RunConfig] = []
        mistakes: list[str] = []
        for arguments in self._grid():
            try:
                configs.append(make_config(**arguments))
            except UserError as error:
                mistakes += error.mistakes
        names = Counter(config.folder_name for config in configs)
        mistakes += [f"{name} is planned {n} times; look for a repeated entry" for name, n in names.items() if n > 1]
        raise_all(list(dict.fromkeys(mistakes)), f"sweep {self.name}")
        return configs

    def _grid(self) -> Iterator[dict[str, Any]]:
        for dataset, own in self.datasets.items():
            schedule = own or Schedule()
            for trial in range(self.trials):
                for algorithm, hparams in self.algorithms.items():
                    for test_envs, indices in self._held_out(dataset):
                        for hparams_seed in range(self.n_hparams):
                            yield {
                                "dataset": dataset,
                                "algorithm": algorithm,
                                "test_envs": test_envs,
                                "model": schedule.model or self.model,
                                "optimizer": self.optimizer,
                                "steps": schedule.steps or self.steps,
                                "checkpoint_freq": schedule.checkpoint_freq or self.checkpoint_freq,
                                "hparams": self.hparams | schedule.hparams | (hparams or {}),
                                "trial_seed": trial,
                                "hparams_seed": hparams_seed,
                                "seed": seed_hash(dataset, algorithm, indices, hparams_seed, trial),
                                "holdout_fraction": self.holdout_fraction,
                                "precision": self.precision,
                                "evaluation": self.evaluation or ("full" if self.test_envs == "pairs" else "lazy"),
                            }

    def _held_out(self, dataset: str) -> list[tuple[list[int | str], list[int]]]:
        """The held-out environments of each run, as they are given and as indices: these seed the run."""
        known = dataset in datasets
        if isinstance(self.test_envs, list):
            return [(e, environment_indices(datasets[dataset], e, []) if known else []) for e in self.test_envs]
        n = len(datasets[dataset].environments) if known else 1
        held_out = []
        for i in range(n):
            held_out.append([i])
            held_out += [[i, j] for j in range(i + 1, n) if self.test_envs == "pairs"]
        return [([f"index:{i}" for i in indices], indices) for indices in held_out]


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file, and load its plugins.

    Raises:
        UserError: the file is missing, is not YAML, or has mistakes: all of them in one message.
    """
    if not path.is_file():
        raise UserError(f"Sweep file {path} does not exist.")
    try:
        values = yaml.load(path.read_text(), _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path} should hold settings such as `name:`, `datasets:`, `algorithms:`. Found {values!r}.")
    try:
        sweep = Sweep.model_validate(_lists_to_keys(values))
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}. Found {e['input']!r}." for e in error.errors()]
        raise_all(mistakes, f"{path} (settings: {', '.join(Sweep.model_fields)})")
        raise
    for plugin in sweep.plugins:
        load_plugin(path.parent / plugin)
    return sweep


def _lists_to_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Accept ``datasets: [PACS]`` for ``datasets: {PACS: }``, and the same for algorithms."""
    return {
        key: dict.fromkeys(value) if key in ("datasets", "algorithms") and isinstance(value, list) else value
        for key, value in values.items()
    }


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-6 as a text, since it has no dot; here it is a number."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
for _first in "-+0123456789.":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).insert(
        0, ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"))
    )
