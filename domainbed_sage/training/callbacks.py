"""Listeners of a run: TensorBoard curves, or a tracking service of your own.

A callback is told what a run records; it cannot change it. If it fails, a warning says so and the run goes on.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from domainbed_sage.config import RunConfig
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.registry import Registry

log = logging.getLogger(__name__)


class Callback:
    """Override what you need; `scripts/wandb_callback.py` is an example."""

    def on_start(self, config: RunConfig, folder: Path, step: int) -> None:
        """Training begins, or continues, at `step` in the run's folder; later records are reported again."""

    def on_record(self, record: Mapping[str, Any]) -> None:
        """An evaluation was recorded: the line of ``results.jsonl``, where null (not evaluated) is NaN here."""

    def on_end(self, *, finished: bool) -> None:
        """The run is finished, or stops to be continued, or fails."""


callbacks: Registry[Callable[[], Callback]] = Registry("callback", Callable)


def curves(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record that make a curve: losses, accuracies and metrics that are not NaN."""
    numbers = {key: value for key, value in record.items() if isinstance(value, float | int) and key != "step"}
    return {key: float(value) for key, value in numbers.items() if not math.isnan(value)}


class Callbacks:
    """The callbacks of one run, by name; one that cannot be made, or fails as training begins, receives nothing more.

    Raises:
        UserError: a name is not known, or what it needs is not installed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        makers = {name: callbacks[name] for name in names}
        self._callbacks: dict[str, Callback] = {}
        for name, make in makers.items():
            try:
                self._callbacks[name] = make()
            except UserError:
                raise
            except Exception as error:
                _warn(name, error)

    def start(self, config: RunConfig, folder: Path, step: int) -> None:
        """See `Callback.on_start`."""
        for name in self._tell(lambda callback: callback.on_start(config, folder, step)):
            del self._callbacks[name]

    def record(self, record: Mapping[str, Any]) -> None:
        """See `Callback.on_record`; each is given a copy."""
        self._tell(lambda callback: callback.on_record(dict(record)))

    def end(self, *, finished: bool) -> None:
        """See `Callback.on_end`."""
        self._tell(lambda callback: callback.on_end(finished=finished))

    def _tell(self, call: Callable[[Callback], None]) -> list[str]:
        """Names of those that failed."""
        failed = []
        for name, callback in self._callbacks.items():
            try:
                call(callback)
            except Exception as error:  # a service that is down must not cost a run
                _warn(name, error)
                failed.append(name)
        return failed


def _warn(name: str, error: Exception) -> None:
    log.warning("Callback %s failed: %s: %s. The run goes on.", name, type(error).__name__, error)


@callbacks.register("tensorboard")
class TensorBoard(Callback):
    """TensorBoard event files in the run's folder, ``tensorboard/``.

    Raises:
        UserError: tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs the package tensorboard. Install it with: "
                "pip install 'domainbed-sage[tensorboard]'"
            ) from None
        self._open: Any = SummaryWriter

    def on_start(self, config: RunConfig, folder: Path, step: int) -> None:
        """Open the event file; what an interrupted start wrote after `step` is hidden."""
        self._writer = self._open(str(folder / "tensorboard"), purge_step=step)

    def on_record(self, record: Mapping[str, Any]) -> None:
        """Write a point of every curve."""
        for name, value in curves(record).items():
            self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()

    def on_end(self, *, finished: bool) -> None:
        """Close the event file."""
        del finished
        self._writer.close()
