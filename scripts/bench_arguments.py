"""Options that the benchmarks of a model have in common."""

import argparse
import json
from pathlib import Path

import torch

from domainbed_sage.models import models


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the model, its hyperparameters, the number of threads, and a file for what is measured."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="clip_vit_b16", choices=list(models))
    made.add_argument(
        "--hparams", type=json.loads, default={"weights": "none"}, help="JSON, the model's hyperparameters"
    )
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--json", type=Path)
    return made
