"""A finished run, read back from its folder: what it is, its records, its final weights."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from domainbed_sage.algorithms.problems import TASKS, kind_of
from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import own
from domainbed_sage.data.specs import datasets
from domainbed_sage.models.checkpoints import check_tensors, first_line
from domainbed_sage.results.records import RESULTS, read_run, run_record
from domainbed_sage.results.selection import training_domain
from domainbed_sage.training import origin
from domainbed_sage.training.experiment import Experiment, build
from domainbed_sage.training.run_folder import read_description

WEIGHTS = "model.pkl"
_AGAIN = "restore it from a copy, or remove the folder and train the run again"


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended.

    Attributes:
        folder: where it is stored.
        config: its science.
        records: the lines of its ``results.jsonl``; the last one is of its last step.
    """

    folder: Path
    config: RunConfig
    records: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        """The record of the last step, after which `model.pkl` was written."""
        return self.records[-1]

    @cached_property
    def selected_step(self) -> int | None:
        """The step that training-domain selection chooses in this run; None if several environments are held out."""
        selected = training_domain([run_record(self.folder, self.records)])
        return selected.step if selected else None


def read(folder: Path, images: Path | None = None) -> FinishedRun:
    """Read the description and the records of a finished run.

    Args:
        folder: of the run.
        images: the folder of images that is its dataset, if it is one and has moved.

    Raises:
        UserError: it is not a run, it is not finished, or one of its files is missing or damaged.
    """
    if not (folder / "run.json").is_file():
        inside = sorted(path.parent.name for path in folder.glob("*/run.json"))
        found = f" Found in it: {', '.join(inside[:3])}{', …' * (len(inside) > 3)}." if inside else ""
        raise UserError(f"{folder} is not the folder of a run: it has no run.json.{found} Give the folder of one run.")
    try:
        config = read_description(folder / "run.json")
    except UserError as error:
        raise UserError(f"{error} What a plugin registers is known only with --plugin FILE.") from None
    records = read_run(folder / RESULTS) if (folder / RESULTS).is_file() else []
    step = records[-1].get("step") if records else None
    if not (folder / "done").exists():
        stands = "no record" if step is None else f"a record of step {step}"
        raise UserError(
            f"{folder} is not finished: it has {stands} of its {config.steps} steps, and no file 'done'. Start the "
            f"same command again to finish it."
        )
    if step != config.steps - 1:
        raise UserError(
            f"{folder / RESULTS} should end with the record of step {config.steps - 1}. Found step {step}. Without it "
            f"nobody knows which data the weights belong to: {_AGAIN}."
        )
    _know_dataset(folder, config, records[-1], images)
    return FinishedRun(folder, config, records)


def _know_dataset(folder: Path, config: RunConfig, last: Mapping[str, Any], images: Path | None) -> None:
    """Register the folder of images that a run was trained on, where its dataset is one."""
    if kind_of(config.dataset) is TASKS:
        return
    args = last.get("args", {})
    found = images or Path(str(args.get("data_dir"))) / config.dataset
    if images or (config.dataset not in datasets and found.is_dir()):
        own.register(found, config.dataset)
    elif config.dataset not in datasets:
        raise UserError(
            f"{folder} was trained on {config.dataset}, which is not known here. If it is a folder of images, say "
            f"where it is: --dataset {own.SCHEME}PATH. If a plugin registers it: --plugin FILE. "
            f"{datasets.unknown(config.dataset)}"
        )


def load(run: FinishedRun, machine: Machine) -> Experiment:
    """Build the parts of the run as training does, give the model the run's final weights, and put it into evaluation.

    Raises:
        UserError: there is no `model.pkl`, it is damaged, of another run or of another architecture; or the data are
            not those of the run.
    """
    path = run.folder / WEIGHTS
    weights = _weights(path, run.config)
    experiment = build(run.config, machine)
    origin.check_data(run.last, experiment.metadata, config=run.config, folder=run.folder)
    model = experiment.algorithm.model
    model.take_shapes(weights)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_tensors(weights, expected, f"{path}, read as weights of {run.config.model}")
    model.load_state_dict(weights)
    model.eval()
    return experiment


def _weights(path: Path, config: RunConfig) -> dict[str, Tensor]:
    if not path.exists():
        raise UserError(
            f"{path} does not exist: the run was trained with --skip_model_save, or the file was removed. Without it "
            f"the run has no weights. Train it again without that option, in another folder."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if torn := archive.testzip():  # the checksum of every tensor, which PyTorch does not look at
                raise ValueError(f"{torn} has a wrong checksum")
        file = torch.load(path, map_location="cpu", weights_only=True)
        theirs = file["args"] | {"hparams": file["model_hparams"]}
        weights: dict[str, Tensor] = dict(file["model_dict"])
        if not all(isinstance(weight, Tensor) for weight in weights.values()):
            raise ValueError("its model_dict should hold tensors")
    except Exception as error:  # a damaged file can break its reader in any way
        what = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{path} cannot be read as the weights of a run: {what}. To fix it, {_AGAIN}.") from error
    ours = config.model_dump(mode="json")
    differing = ", ".join(f"{k} {theirs[k]!r} → {v!r}" for k, v in ours.items() if k in theirs and theirs[k] != v)
    if differing:
        raise UserError(f"{path} holds the weights of another run; it differs from run.json in: {differing}.")
    return weights
