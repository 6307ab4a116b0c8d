"""Hyperparameters of multi-task data."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Hyperparameters of multi-task data.

    Attributes:
        batch_size: samples of a minibatch; the last one of an epoch may have fewer.
        only_task: name of the one task to learn, as single-task baselines do; empty: all tasks.
        augment: ``mtan``: MTAN's crops and flips of scenes, see `domainbed_sage.tasks.Crop`; ``none``.
    """

    batch_size: Annotated[int, Field(ge=1)] = 8
    only_task: Annotated[str, Field(description="the name of a task, or nothing")] = ""
    augment: Literal["mtan", "none"] = "mtan"
