"""Weights & Biases as a plugin: an example callback for a tracking service.

    domainbed-sage train --plugin scripts/wandb_callback.py --callback wandb ...
    domainbed-sage sweep run FILE --plugin scripts/wandb_callback.py --callback wandb

Needs the package wandb and a login (or WANDB_MODE=offline). A run keeps its W&B id across restarts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.training.callbacks import Callback, callbacks, curves


@callbacks.register("wandb")
class WandB(Callback):
    """One W&B run per run, in the project ``domainbed-sage``, grouped by dataset and algorithm."""

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("The callback wandb needs the package wandb: pip install wandb") from None
        self.wandb: Any = wandb

    def on_start(self, config: RunConfig, folder: Path, step: int) -> None:
        """Start the W&B run with this run's id, or resume it."""
        del step
        self.run = self.wandb.init(
            project="domainbed-sage",
            id=config.run_id,
            name=config.folder_name,
            group=f"{config.dataset}-{config.algorithm}",
            config=config.model_dump(mode="json"),
            dir=str(folder),
            resume="allow",
        )

    def on_record(self, record: Mapping[str, Any]) -> None:
        """Log the metrics of an evaluation."""
        self.run.log(curves(record), step=record["step"])

    def on_end(self, *, finished: bool) -> None:
        """Close the W&B run; an interrupted run that will be continued is not marked as failed."""
        del finished
        self.run.finish()
