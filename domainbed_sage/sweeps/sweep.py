"""A sweep file, and the runs it stands for."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PrivateAttr

from domainbed_sage.algorithms import algorithms
from domainbed_sage.algorithms.problems import TASKS, kind_of, specification
from domainbed_sage.config import Evaluation, RunConfig, declared_hparams, environment_indices, make_config
from domainbed_sage.core.errors import Mistake, UserError, counted, raise_all
from domainbed_sage.core.plugins import load_plugin
from domainbed_sage.core.seeding import seed_hash
from domainbed_sage.core.settings import checked, line_of
from domainbed_sage.core.yaml_file import Document
from domainbed_sage.data import own
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.sweeps import name as sweep_name
from domainbed_sage.sweeps.parts import Data, DatasetName, Label, OneOfPrecisions, PositiveInt, Row, Schedule

log = logging.getLogger(__name__)

MOST_RUNS = 200_000


class Planned(NamedTuple):
    """A run, and the row of the tables that it belongs to; the label is no part of the run's science."""

    label: str
    config: RunConfig


class Sweep(Schedule):
    """What a sweep file may say.

    Attributes:
        name: names the results folder, ``results/<name>``.
        datasets: each dataset, with the settings that differ from those for all.
        algorithms: the rows of the tables by label, see `Row`. A label is the name of an algorithm, or any other for a
            row that names its algorithm.
        test_envs: ``single`` holds out each environment in turn; ``pairs`` each one and each pair, which
            leave-one-domain-out selection needs (DomainBed's own sweep); or a list of lists of environments.
        trials: number of trials; trial t has trial_seed t.
        n_hparams: number of hyperparameter settings; the first has the defaults and what `hparams` says, the others
            are random where `hparams` says nothing.
        search: random-search ranges in place of the declared ones, for all, for a dataset or for a row, see
            `core.ranges`; such a hyperparameter is drawn although it stands in `hparams`, too.
        optimizer: base optimiser.
        precision: arithmetic.
        evaluation: ``lazy`` or ``full``, see `RunConfig`; by default lazy, and full with pairs of held-out
            environments, because leave-one-domain-out selection reads every evaluation.
        holdout_fraction: share of the out splits.
        plugins: Python files to load first, relative to the sweep file.
    """

    name: Annotated[str, Field(pattern=sweep_name.PATTERN, description=sweep_name.IN_WORDS)]
    datasets: Annotated[
        dict[DatasetName, Data | None],
        Field(min_length=1, description="a list of datasets, or a mapping to their settings"),
    ]
    algorithms: Annotated[
        dict[Label, Row | None],
        Field(min_length=1, description="a list of algorithms, or a mapping to their hyperparameters"),
    ]
    test_envs: Annotated[
        Literal["single", "pairs"] | Annotated[list[list[int | str]], Field(min_length=1)],
        Field(description="single, pairs, or lists of held-out environments such as [[0], [1, 2]]"),
    ] = "single"
    trials: PositiveInt = 3
    n_hparams: PositiveInt = 1
    optimizer: str = "adam"
    precision: OneOfPrecisions = "fp32"
    evaluation: Evaluation | None = None
    holdout_fraction: Annotated[float, Field(gt=0, lt=1, description="a number between 0 and 1")] = 0.2
    plugins: list[Annotated[str, Field(pattern=r"^[^\x00]+$")]] = Field([], description="a list of Python files")

    _document: Document | None = PrivateAttr(None)

    def runs(self) -> list[RunConfig]:
        """All runs, every trial of the first dataset first.

        Raises:
            UserError: lists every mistake in the file.
        """
        return [config for _, config in self.planned()]

    def planned(self) -> list[Planned]:
        """All runs with their labels, in the order of `runs`.

        Raises:
            UserError: lists every mistake in the file.
        """
        self._refuse_too_many()
        self._refuse_idle_ranges()
        self._refuse_unselected()
        planned: list[Planned] = []
        mistakes: list[str] = []
        for dataset, label, arguments in self._grid():
            try:
                self._check_row(label, arguments)
                planned.append(Planned(label, make_config(**arguments)))
            except UserError as error:
                mistakes += [self._placed(mistake, dataset, label) for mistake in error.mistakes]
        mistakes += self._repeated(planned)
        file = f" ({self._document.path})" if self._document else ""
        raise_all(list(dict.fromkeys(mistakes)), f"sweep {self.name}{file}")
        return planned

    def _grid(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Dataset, label, and what makes the `RunConfig`, of every run."""
        for dataset in self.datasets:
            for trial in range(self.trials):
                for label in self.algorithms:
                    settings = self._settings(dataset, label)
                    for test_envs, indices in self._held_out(dataset):
                        for hparams_seed in range(self.n_hparams):
                            seed = seed_hash(dataset, settings["algorithm"], indices, hparams_seed, trial)
                            seeds = {"trial_seed": trial, "hparams_seed": hparams_seed, "seed": seed}
                            yield dataset, label, {**settings, "test_envs": test_envs, **seeds}

    def _settings(self, dataset: str, label: str) -> dict[str, Any]:
        """Settings of one row on one dataset: the row's override the dataset's, which override those for all."""
        schedule, row = self.datasets[dataset] or Data(), self.algorithms[label] or Row()
        return {
            "dataset": dataset,
            "algorithm": row.algorithm or label,
            "model": row.model or schedule.model or self.model,
            "optimizer": row.optimizer or self.optimizer,
            "steps": schedule.steps or self.steps,
            "checkpoint_freq": schedule.checkpoint_freq or self.checkpoint_freq,
            "hparams": self.hparams | schedule.hparams | row.hparams,
            "search": self.search | schedule.search | row.search,
            "holdout_fraction": self.holdout_fraction,
            "precision": row.precision or self.precision,
            "evaluation": self.evaluation or ("full" if self.test_envs == "pairs" else "lazy"),
        }

    def _held_out(self, dataset: str) -> list[tuple[list[int | str], list[int]]]:
        """The held-out environments of each run, as they are given and as indices: these seed the run."""
        known = dataset in kind_of(dataset).datasets
        if isinstance(self.test_envs, list):
            return [(e, environment_indices(specification(dataset), e, []) if known else []) for e in self.test_envs]
        if known and specification(dataset).only_held_out:
            last = len(specification(dataset).environments) - 1
            return [([f"index:{last}"], [last])]
        n = len(specification(dataset).environments) if known else 1
        held_out = []
        for i in range(n):
            held_out.append([i])
            held_out += [[i, j] for j in range(i + 1, n) if self.test_envs == "pairs"]
        return [([f"index:{i}" for i in indices], indices) for indices in held_out]

    def _refuse_too_many(self) -> None:
        held_out = sum(len(self._held_out(dataset)) for dataset in self.datasets)
        runs = held_out * self.trials * len(self.algorithms) * self.n_hparams
        if runs > MOST_RUNS:
            raise UserError(
                f"Sweep {self.name} would have {runs:,} runs; at most {MOST_RUNS:,} are planned. They come from "
                f"{counted(held_out, 'held-out set')} of environments x {counted(len(self.algorithms), 'algorithm')} "
                f"x {counted(self.trials, 'trial')} x {self.n_hparams:,} settings of hyperparameters (n_hparams). "
                "Lower one of these, or split the sweep into several files."
            )

    def _refuse_idle_ranges(self) -> None:
        """Refuse ranges that nothing is drawn from."""
        parts = (self, *self.datasets.values(), *self.algorithms.values())
        if self.n_hparams == 1 and any(part.search for part in parts if part):
            raise UserError(
                f"Sweep {self.name} has random-search ranges (search), but only one setting of hyperparameters, the "
                "default. Set n_hparams to 2 or more, or remove the ranges."
            )

    def _refuse_unselected(self) -> None:
        """Refuse several settings where none of them will be selected."""
        if self.n_hparams > 1 and (several := [name for name in self.datasets if name in TASKS.datasets]):
            raise UserError(
                f"Sweep {self.name} has {self.n_hparams:,} settings of hyperparameters (n_hparams), but no setting is "
                f"selected on {several[0]}: datasets of several tasks have no split for it. Remove n_hparams, and give "
                "each setting a row of its own; datasets of domains with several settings go into another sweep."
            )

    def _check_row(self, label: str, settings: Mapping[str, Any]) -> None:
        """Refuse a row that could be mistaken for something else."""
        row = self.algorithms[label] or Row()
        algorithm, model, optimizer = (settings[part] for part in ("algorithm", "model", "optimizer"))
        if row.algorithm and label in algorithms and label != row.algorithm:
            text = f"{label} is the name of another algorithm than {row.algorithm}. Give this row another label."
            raise UserError(text, [Mistake(text, "algorithm")])
        own = [name for name in Row.model_fields if getattr(row, name) not in (None, {})]
        if (
            not own
            or algorithm not in algorithms
            or model not in kind_of(settings["dataset"]).models
            or optimizer not in optimizers
        ):
            return
        for name in set(own) & set(declared_hparams(settings["dataset"], algorithm, model, optimizer)):
            text = (
                f"{name!r} of {label} could be the row's {name} or a hyperparameter of that name. Set the "
                "hyperparameter under `hparams:` of the sweep or of a dataset, which mean nothing else."
            )
            raise UserError(text, [Mistake(text, name)])

    def _placed(self, mistake: str, dataset: str, label: str) -> str:
        """A mistake of the row on the dataset, with the line of the setting that it is about."""
        about = getattr(mistake, "about", "")
        if about == "algorithm" and not (self.algorithms[label] or Row()).algorithm:
            mistake += f" A row of any other name says which algorithm it is: `{label}: {{algorithm: NAME}}`."
        places = (
            *(("algorithms", label, about), ("algorithms", label, "search", about)),
            *(("datasets", dataset, where, about) for where in ("hparams", "search")),
            *(("datasets", dataset, about), ("hparams", about), ("search", about), (about,)),
            *({"dataset": [("datasets", dataset)], "algorithm": [("algorithms", label)]}.get(about, [])),
        )
        return next(filter(None, (line_of(self._document, place) for place in places)), "") + mistake

    def _repeated(self, planned: Sequence[Planned]) -> Iterator[str]:
        """Runs that are planned more than once."""
        labels: defaultdict[str, list[str]] = defaultdict(list)
        for label, config in planned:
            labels[config.folder_name].append(label)
        alike: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for name, by in labels.items():
            if len(set(by)) > 1:
                alike[tuple(by)].append(name)
            elif len(by) > 1:
                yield f"{name} is planned {len(by)} times; look for a repeated entry"
        for rows, names in alike.items():
            line, runs = line_of(self._document, ("algorithms", rows[-1])), counted(len(names), "run")
            yield (
                f"{line}{' and '.join(rows)} mean the same {runs}: {names[0]}{', …' * (len(names) > 1)}. Change a "
                "setting of one of these rows, or remove it."
            )


def read_sweep(path: Path, data_dir: Path | None = None) -> Sweep:
    """Read and check a sweep file, load its plugins, and register its folders of images.

    Args:
        path: the file.
        data_dir: folder of the datasets, in which relative folders of images are; by default beside the file.

    Raises:
        UserError: the file cannot be read, is not YAML, or has mistakes: all of them in one message.
    """
    document = sweep_name.read_document(path)
    sweep = checked(Sweep, document.values(), str(path), document)
    sweep._document = document
    for plugin in sweep.plugins:
        load_plugin(path.parent / plugin)
    mistakes = []
    for name, data in sweep.datasets.items():
        if data is not None and data.folder is not None:
            try:
                own.register((data_dir or path.parent) / Path(data.folder).expanduser(), name)
            except UserError as error:
                mistakes.append(f"{line_of(document, ('datasets', name))}{error}")
            if not (data.model or sweep.model or all(row and row.model for row in sweep.algorithms.values())):
                log.warning("%s", own.no_model(name, "`model:`"))
    raise_all(mistakes, str(path))
    return sweep
