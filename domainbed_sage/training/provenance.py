"""What every record says about where its numbers come from."""

import functools
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision

import domainbed_sage
from domainbed_sage.algorithms.problems import specification
from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core import strict_json


def metadata(
    config: RunConfig,
    machine: Machine,
    task: str,
    environments: Sequence[str],
    population: tuple[str, Sequence[str]],
    weights: Mapping[str, str | None],
) -> dict[str, Any]:
    """DomainBed's `args` and `hparams`, and ours: environments, data population, weights, versions, device, commit.

    Args:
        config: the run.
        machine: where it runs.
        task: ``domain_generalization``, DomainBed's word, or ``multi_task``.
        environments: names of the environments, or of the splits.
        population: what identifies the data, and what else is to be known about them.
        weights: where the pretrained weights come from.
    """
    variant, notes = population
    args = config.model_dump(mode="json", exclude={"hparams"}) | {
        "task": task,
        "uda_holdout_fraction": 0,
        "hparams": strict_json.dumps(config.hparams, sort_keys=True),
        "data_dir": str(specification(config.dataset).place(machine.data_dir)),
        "output_dir": str(machine.output_dir),
        "skip_model_save": machine.skip_model_save,
        "save_model_every_checkpoint": False,
    }
    return {
        "args": args,
        "hparams": config.hparams,
        "environments": list(environments),
        "data": {"variant": variant, "notes": list(notes)},
        "weights": dict(weights),
        "versions": versions(),
        "device": device_name(machine.device),
        "commit": commit(),
    }


def versions() -> dict[str, str | None]:
    """Versions of the software that determines a run's numbers."""
    return {
        "domainbed_sage": domainbed_sage.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def device_name(device: torch.device) -> str:
    """Name of the device, e.g. ``NVIDIA A100-SXM4-40GB MIG 3g.20gb`` or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@functools.cache
def commit() -> str | None:
    """Commit of the checkout that the package runs from, with ``+`` after it if files differ from it."""
    package = Path(__file__).parent.parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(package), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", ".") else "") if tracked else None
    except (OSError, subprocess.SubprocessError):
        return None
