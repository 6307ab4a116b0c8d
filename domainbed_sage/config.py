"""Description of a run: `RunConfig` holds its science and is hashed; `Machine` holds where it runs and is not."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict

from domainbed_sage.algorithms import algorithms
from domainbed_sage.algorithms.problems import TASKS, Specification, kind_of, specification
from domainbed_sage.core.errors import Mistake, UserError, raise_all, shown
from domainbed_sage.core.hparams import HParam, Search, declared, resolve, unknown, validate
from domainbed_sage.data import own
from domainbed_sage.geometry.products import Precision
from domainbed_sage.models.optimizers import optimizers

Evaluation: TypeAlias = Literal["lazy", "full"]
MOST_STEPS = 10**9
LARGEST_SEED = 2**63 - 1  # what a table of 64-bit integers holds
LONGEST_NAME = 255  # bytes of a file's name
SHORTENED = 120
DESCRIPTION = "the description of the run"
TRAINING_PRECISIONS = ("fp32", "tf32", "bf16", "bf16x3", "bf16x6")  # fp64 is for the replay of recorded trajectories
NO_FP16 = "Small gradients become zero in fp16 unless the loss is scaled, which it is not here: use bf16 or fp32."


class RunConfig(BaseModel):
    """The science of one run. Equal fields give equal results, bit for bit on equal processors and thread counts.

    Attributes:
        dataset: name of the dataset.
        algorithm: name of the algorithm.
        test_envs: indices of the held-out environments; of several tasks, that of the test split.
        model: name of the model.
        optimizer: name of the base optimiser.
        trial_seed: number of the trial; seeds the in/out split and the random hyperparameters.
        hparams_seed: 0 = default hyperparameters, otherwise random ones.
        seed: seeds everything else.
        steps: number of training steps.
        checkpoint_freq: steps between evaluations.
        holdout_fraction: share of every environment in its out split.
        precision: arithmetic of the forward and backward passes.
        evaluation: ``full``: every split of every environment at every evaluation, DomainBed's records; ``lazy``: what
            model selection reads, and null for the rest.
        hparams: all hyperparameters, resolved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    model: str
    optimizer: str = "adam"
    trial_seed: int = 0
    hparams_seed: int = 0
    seed: int = 0
    steps: int
    checkpoint_freq: int
    holdout_fraction: float = 0.2
    precision: Precision = "fp32"
    evaluation: Evaluation = "lazy"
    hparams: dict[str, Any]

    @cached_property
    def run_id(self) -> str:
        """Hash of the science, 12 hexadecimal digits; no path, host or date enters it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def folder_name(self) -> str:
        """Name of the run's folder: readable, unique through the `run_id`, and not longer than file systems take."""
        held_out = "+".join(str(i) for i in self.test_envs)
        head, tail = f"{self.dataset}-{self.algorithm}-env{held_out}", f"-trial{self.trial_seed}-{self.run_id}"
        if len((head + tail).encode()) > LONGEST_NAME:
            head = head.encode()[: SHORTENED - len(tail)].decode(errors="ignore") + "..."
        return head + tail

    @property
    def source_envs(self) -> tuple[int, ...]:
        """Indices of the environments to train on."""
        return tuple(i for i in range(len(specification(self.dataset).environments)) if i not in self.test_envs)

    @property
    def held_out(self) -> str:
        """Labels of the held-out environments, e.g. ``A+S``."""
        return "+".join(specification(self.dataset).environments[i] for i in self.test_envs)

    def of(self, *configurables: Any) -> dict[str, Any]:
        """The hyperparameters that these components declare."""
        return {name: self.hparams[name] for name in declared(*configurables)}


@dataclass(frozen=True)
class Machine:
    """Where and how a run runs; nothing here changes its numbers on CPU.

    Attributes:
        output_dir: the run's own folder.
        data_dir: folder of the datasets.
        device: torch device.
        num_workers: loader processes.
        save_every_s: seconds between checkpoints; one is also written at every evaluation.
        look_every_s: seconds between progress notes, and between checks that the run still owns its folder.
        keep_checkpoint: keep the last checkpoints of a finished run.
        skip_model_save: write no `model.pkl` at the end.
        keep_correctness: write at the end which held-out images are classified correctly, see `results.correctness`.
        log_alignment: add to records the cosine between the gradients of source and held-out domains, see `alignment`.
        progress: show a progress bar.
        callbacks: names of listeners, see `callbacks`.
    """

    output_dir: Path
    data_dir: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    num_workers: int = 0
    save_every_s: float = 300.0
    look_every_s: float = 1.0
    keep_checkpoint: bool = False
    skip_model_save: bool = False
    keep_correctness: bool = False
    log_alignment: bool = False
    progress: bool = False
    callbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise UserError(f"num_workers should be a number of loader processes, 0 or more. Found {self.num_workers}.")


def declared_hparams(dataset: str, algorithm: str, model: str, optimizer: str) -> Mapping[str, HParam]:
    """Every hyperparameter of a run with these parts, from their signatures."""
    kind = kind_of(dataset)
    return declared(*kind.configurables, optimizers[optimizer], kind.models[model].build, algorithms[algorithm])


def make_config(
    *,
    dataset: str,
    algorithm: str,
    test_envs: Sequence[int | str] | None = None,
    model: str | None = None,
    optimizer: str = "adam",
    steps: int | None = None,
    checkpoint_freq: int | None = None,
    hparams: Mapping[str, Any] | None = None,
    search: Mapping[str, Search] | None = None,
    **fields: Any,
) -> RunConfig:
    """Fill in the defaults of dataset, model and algorithm, and check everything.

    The dataset may be a folder of images, ``folder:PATH``, see `data.own`. A hyperparameter in both `hparams` and
    `search` has the given value in the default setting, hparams_seed 0, and is drawn in all others.

    Raises:
        UserError: unknown names, environments that leave no source, impossible values; all at once.
    """
    dataset = own.known(dataset)
    kind = kind_of(dataset)
    model = model or (kind.datasets[dataset].model if dataset in kind.datasets else "small_cnn")
    names = ((kind.datasets, dataset), (algorithms, algorithm), (kind.models, model), (optimizers, optimizer))
    mistakes: list[str] = [
        Mistake(registry.unknown(name), registry.kind) for registry, name in names if name not in registry
    ]
    if dataset not in kind.datasets:
        mistakes[0] = Mistake(f"{mistakes[0]} Of several tasks: {', '.join(TASKS.datasets)}.", "dataset")
    raise_all(mistakes, DESCRIPTION)
    spec = specification(dataset)
    usual_steps, usual_freq = spec.schedule(hparams or {})
    steps = usual_steps if steps is None else steps
    checkpoint_freq = usual_freq if checkpoint_freq is None else checkpoint_freq
    mistakes += _value_mistakes(steps, checkpoint_freq, **fields)
    envs = environment_indices(spec, spec.held_out if test_envs is None else test_envs, mistakes)
    seeds = {name: fields.get(name, 0) for name in ("hparams_seed", "trial_seed")}
    resolved = _resolved((dataset, algorithm, model, optimizer), hparams or {}, search or {}, mistakes, **seeds)
    raise_all(mistakes, DESCRIPTION)
    return RunConfig(
        dataset=dataset,
        algorithm=algorithm,
        test_envs=tuple(envs),
        model=model,
        optimizer=optimizer,
        steps=steps,
        checkpoint_freq=checkpoint_freq,
        hparams=resolved,
        **fields,
    )


def _resolved(
    names: tuple[str, str, str, str],
    given: Mapping[str, Any],
    ranges: Mapping[str, Search],
    mistakes: list[str],
    *,
    hparams_seed: int,
    trial_seed: int,
) -> dict[str, Any]:
    """Hyperparameters of a run with these names of its parts; what is wrong with them is added to `mistakes`."""
    dataset, algorithm, model, _ = names
    kind, spec, cls, known = kind_of(dataset), specification(dataset), algorithms[algorithm], declared_hparams(*names)
    mistakes += [Mistake(unknown(name, known), name) for name in ranges if name not in known]
    drawn = ranges if hparams_seed else {}
    try:
        resolved = resolve(
            known,
            {name: value for name, value in given.items() if name not in drawn},
            recommended={**spec.recommended, **kind.models[model].recommended, **cls.recommended},
            search={**spec.search, **kind.models[model].search, **ranges},
            hparams_seed=hparams_seed,
            trial_seed=trial_seed,
        )
        return kind.completed(cls.completed(resolved))
    except UserError as error:
        mistakes += error.mistakes
        return {}


def read_config(values: Mapping[str, Any]) -> RunConfig:
    """Rebuild a `RunConfig` from its JSON form.

    Raises:
        UserError: it names things that are not registered (a plugin may be missing), or has impossible values.
    """
    config = RunConfig(**values)
    validate(declared_hparams(config.dataset, config.algorithm, config.model, config.optimizer), config.hparams)
    kind_of(config.dataset).completed(algorithms[config.algorithm].completed(config.hparams))
    return config


def environment_indices(spec: Specification, test_envs: Sequence[int | str], mistakes: list[str]) -> list[int]:
    """Indices of the held-out environments, each given by its name or its index; appends errors to `mistakes`.

    Text and numbers mean the same, on the command line and in sweep files: a name wins over an index. Digits that are
    the name of one environment and the index of another are refused, because they are
    ambiguous; write ``name:2`` or ``index:2``. Environments ``01`` and ``1`` are both called 1 here: YAML drops the 0.
    """
    names = ", ".join(f"{i} = {name}" for i, name in enumerate(spec.environments))
    indices = []
    for env in test_envs:
        found = _readings(spec.environments, str(env))
        if len(found) == 1:
            indices += found
        elif not found:
            mistakes.append(Mistake(f"{spec.name} has no environment {env!r}. Known: {names}.", "test_envs"))
        else:
            readings = " or ".join(f"name:{spec.environments[i]} (index:{i})" for i in found)
            text = f"{env!r} in test_envs may mean more than one environment of {spec.name}. Say {readings}."
            mistakes.append(Mistake(text, "test_envs"))
    if len(set(indices)) != len(indices) or not test_envs:
        text = f"test_envs should name each held-out environment once. Found {list(test_envs)}."
        mistakes.append(Mistake(text, "test_envs"))
    if spec.only_held_out and not set(indices) <= {spec.environments.index(name) for name in spec.only_held_out}:
        text = f"test_envs should be {spec.only_held_out[0]} for {spec.name}. Found {list(test_envs)}."
        mistakes.append(Mistake(text, "test_envs"))
    elif len(set(indices)) == len(spec.environments):
        text = f"test_envs {list(test_envs)} leave no environment of {spec.name} to train on. Known: {names}."
        mistakes.append(Mistake(text, "test_envs"))
    return indices


def _readings(names: Sequence[str], text: str) -> list[int]:
    """Indices of the environments that a string may mean: by name first, then by index."""
    kind, _, rest = text.partition(":")
    by_name = {name: i for i, name in enumerate(names)}
    by_index = {str(i): i for i in range(len(names))}
    if text not in by_name and kind in ("name", "index"):
        chosen = by_name if kind == "name" else by_index
        return [chosen[rest]] if rest in chosen else []
    number = str(int(text)) if text.isdecimal() else text
    same = [i for name, i in by_name.items() if name == text or (name.isdecimal() and str(int(name)) == number)]
    return list(dict.fromkeys([*same, *([by_index[number]] if number in by_index else [])]))


def _value_mistakes(
    steps: int, checkpoint_freq: int, *, holdout_fraction: float = 0.2, precision: str = "fp32", **others: Any
) -> list[str]:
    wholes = {"steps": (steps, 1, MOST_STEPS), "checkpoint_freq": (checkpoint_freq, 1, MOST_STEPS)}
    wholes |= {name: (others.get(name, 0), 0, LARGEST_SEED) for name in ("seed", "trial_seed", "hparams_seed")}
    mistakes: list[str] = [
        Mistake(f"{name} should be a whole number ≥ {low} and ≤ {high:,}. Found {shown(value)}.", name)
        for name, (value, low, high) in wholes.items()
        if not isinstance(value, int) or not low <= value <= high
    ]
    if not 0 < holdout_fraction < 1:
        mistakes.append(f"holdout_fraction should be between 0 and 1. Found {holdout_fraction!r}.")
    if precision not in TRAINING_PRECISIONS:
        advice = f" {NO_FP16}" if precision == "fp16" else ""
        text = f"precision should be one of {', '.join(TRAINING_PRECISIONS)}. Found {precision!r}.{advice}"
        mistakes.append(Mistake(text, "precision"))
    return mistakes
