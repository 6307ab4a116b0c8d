"""The only training loop. It knows no algorithm and no dataset by name."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from domainbed_sage.algorithms import guard
from domainbed_sage.algorithms.metrics import check_metrics
from domainbed_sage.config import Machine, RunConfig
from domainbed_sage.core import limits
from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.core.files import regular
from domainbed_sage.core.seeding import step_seed
from domainbed_sage.training import console, origin, provenance
from domainbed_sage.training.alignment import Alignment
from domainbed_sage.training.callbacks import Callbacks
from domainbed_sage.training.correct import CorrectImages
from domainbed_sage.training.evaluate import Accuracies
from domainbed_sage.training.experiment import Experiment, build, of_domains
from domainbed_sage.training.run_folder import RunFolder
from domainbed_sage.training.task_evaluator import TaskEvaluator

log = logging.getLogger(__name__)


def run(config: RunConfig, machine: Machine, stop: threading.Event | None = None) -> None:
    """Train one run to its end, from wherever it stands, and record it in its folder.

    A finished run is left as it is. A run that was killed continues from its checkpoint and, on CPU, ends with the
    weights and records of a run that was never interrupted, bit for bit.

    Args:
        config: the science.
        machine: where it runs.
        stop: set by a signal handler to ask for a checkpoint and an early end.

    Raises:
        UserError: bad data, a full disk, a non-finite loss, a folder in use: the message says what to do.
        Stopped: `stop` was set.
    """
    folder = RunFolder(machine.output_dir)
    if folder.finished(config, keep_checkpoint=machine.keep_checkpoint):
        return
    with folder.locked(), _same_threads_after():
        folder.claim(config)
        if regular(folder.done):
            folder.clean(keep_checkpoint=machine.keep_checkpoint)
            return
        folder.forget_failure()
        with folder.logs(), limits.explained(*limits.STEP):
            environment = provenance.versions() | {"device": str(machine.device)}
            log.info("Environment: %s", environment, extra=console.IN_FILES)
            log.info("Run %s: %s", config.run_id, config.model_dump(mode="json"), extra=console.IN_FILES)
            listeners = Callbacks(machine.callbacks)
            experiment = build(config, machine)
            state = folder.restore()
            origin.check_data(folder.last, experiment.metadata, config, folder.path)
            loop = Loop(config, machine, folder, experiment, stop or threading.Event(), listeners)
            listeners.start(config, folder.path, state["step"] if state else 0)
            try:
                loop.run(state)
            finally:
                listeners.end(finished=loop.finished)
            if loop.correct:
                folder.check_owner()
                loop.correct.write(folder.path)
            model = None if machine.skip_model_save else _model_file(config, experiment)
            folder.finish(model, keep_checkpoint=machine.keep_checkpoint)


@contextmanager
def _same_threads_after() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Loop:
    """Steps, evaluations, records and checkpoints of one run."""

    def __init__(
        self,
        config: RunConfig,
        machine: Machine,
        folder: RunFolder,
        experiment: Experiment,
        stop: threading.Event,
        listeners: Callbacks,
    ) -> None:
        self.config, self.machine, self.folder, self.stop, self.listeners = config, machine, folder, stop, listeners
        self.experiment, self.algorithm = experiment, experiment.algorithm
        self.metadata = experiment.metadata | experiment.measured()
        self.pending: dict[str, list[Tensor]] = {}  # metrics of the steps since the last record
        self.step_times: list[float] = []
        self.best = float("-inf")  # highest source out accuracy so far
        self.saved_at = self.shown_at = self.began = time.monotonic()
        self.correct = CorrectImages(of_domains(experiment)) if machine.keep_correctness else None
        self.alignment = Alignment(experiment) if machine.log_alignment else None
        self.first = 0  # step that this process began with
        self.finished = False
        self.told = False  # whether the head of the table of evaluations is printed

    def run(self, state: Mapping[str, Any] | None) -> None:
        """Train from the checkpointed `state`, or from the start, to the last step."""
        start = self.first = self._resume(state) if state else 0
        self.began = time.monotonic()
        pin_memory = self.machine.device.type == "cuda"
        stream: Any = self.experiment.stream
        batches = stream.batches(start, self.config.steps, self.machine.num_workers, pin_memory)
        bar = tqdm(
            initial=start,
            total=self.config.steps,
            desc=f"{self.config.algorithm} {self.config.dataset} {self.config.held_out}",
            disable=None if self.machine.progress else True,  # None: only on a terminal
            unit="step",
        )
        began = time.monotonic()
        with closing(batches), bar:
            for step, batch in zip(range(start, self.config.steps), batches, strict=True):
                self._step(step, batch.to(self.machine.device).map(self.experiment.normalize))
                self.step_times.append(time.monotonic() - began)
                self._after(step, bar)
                began = time.monotonic()
        self.finished = True

    def _step(self, step: int, batch: Any) -> None:
        if self.alignment:
            self.alignment.note(step, batch)
        torch.manual_seed(step_seed(self.config.seed, "update", step))
        self.algorithm.step, self.algorithm.batch = step, batch
        self.algorithm.objectives.begins(step)
        metrics = self.algorithm.update(batch)
        check_metrics(metrics, self.config.algorithm)
        for key, value in metrics.items():
            self.pending.setdefault(key, []).append(value)

    def _after(self, step: int, bar: "tqdm[Any]") -> None:
        bar.update()
        last = step == self.config.steps - 1
        if last or self.experiment.is_evaluated(step, self.config.checkpoint_freq):
            self._record(step)
            self._save(step + 1)
        elif self.stop.is_set() or time.monotonic() - self.saved_at > self.machine.save_every_s:
            self._check_finite(step)
            self._save(step + 1)
        if time.monotonic() - self.shown_at > self.machine.look_every_s:
            self._show(step, bar)
        if self.stop.is_set() and not last:
            raise Stopped(f"Stopped after step {step}; start the same command again to continue.")

    def _record(self, step: int) -> None:
        self._check_finite(step)
        measured, ending = self._measure(step)
        if self.correct:
            self.correct.note(step, measured, last=step == self.config.steps - 1, is_ending=bool(ending))
        record: dict[str, Any] = {
            "step": step,
            "epoch": step / self.experiment.steps_per_epoch,
            "step_time": float(np.mean(self.step_times)),
            "mem_gb": torch.cuda.max_memory_allocated() / 1024**3 if self.machine.device.type == "cuda" else 0.0,
            **{key: float(torch.stack(values).double().mean()) for key, values in self.pending.items()},
            **(self.alignment.record() if self.alignment else {}),
            **guard.measured(self.algorithm),
            **measured,
        }
        log.info("%s", "  ".join(f"{k} {v:.4g}" for k, v in sorted(record.items())), extra=console.IN_FILES)
        self._tell(record, measured)
        self.folder.append(record | ({"evaluated": ending} if ending else {}) | self.metadata)
        self.listeners.record(record)
        self.pending, self.step_times = {}, []

    def _tell(self, record: Mapping[str, Any], measured: Accuracies) -> None:
        """Print the row of an evaluation, for people."""
        evaluator = self.experiment.evaluator
        if not self.told:
            log.info("%s", console.task_head(evaluator.shown) if isinstance(evaluator, TaskEvaluator) else console.HEAD)
            self.told = True
        if isinstance(evaluator, TaskEvaluator):
            log.info("%s", console.task_row(record, evaluator.shown))
        else:
            source = evaluator.source_accuracy(measured)
            log.info("%s", console.row(record, self.config, source, self.best))

    def _measure(self, step: int) -> tuple[Accuracies, str]:
        """Evaluate the weights of this step; after the last one, those that the method ends in, and what they are."""
        last, found = step == self.config.steps - 1, Accuracies()
        if self.experiment.is_evaluated(step, self.config.checkpoint_freq):
            found = self._evaluate(last)
            if self.algorithm.watches_loss:
                self.algorithm.validated(self.experiment.evaluator.source_loss(found))
        ending = self.algorithm.finish() if last else ""
        if ending or not found:
            found = self._evaluate(last)
        return found, ending

    def _evaluate(self, last: bool) -> Accuracies:
        evaluator, predict = self.experiment.evaluator, self.algorithm.objectives.predict
        self.algorithm.model.eval()
        full = self.config.evaluation == "full"
        accuracies = evaluator.full(predict) if full else evaluator.lazy(predict, self.best, last)
        self.algorithm.model.train()
        self.best = max(self.best, evaluator.source_accuracy(accuracies))
        return accuracies

    def _save(self, next_step: int) -> None:
        pending = {key: torch.stack(values).cpu() for key, values in self.pending.items()}
        state = {"step": next_step, "algorithm": self.algorithm.state_dict(), "pending": pending, "best": self.best}
        if self.correct:
            state["correct"] = self.correct.state_dict()
        if self.alignment:
            state["alignment"] = self.alignment.state_dict()
        self.folder.save(state | {"threads": torch.get_num_threads()})
        self.saved_at = time.monotonic()

    def _resume(self, state: Mapping[str, Any]) -> int:
        try:
            self.algorithm.load_state_dict(state["algorithm"])
        except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(
                f"{self.config.algorithm} cannot take up the state that its checkpoint holds: {error!r}. Its code, or "
                f"its model's, has changed, or its load_state_dict does not read what its state_dict returns. "
                f"Fix that, or remove the checkpoints in {self.folder.path} to start over."
            ) from error
        self.best = state["best"]
        if self.correct:
            self.correct.load_state_dict(state.get("correct"), self.best)
        if self.alignment:
            self.alignment.load_state_dict(state.get("alignment"))
        self.pending = {key: list(values.to(self.machine.device)) for key, values in state["pending"].items()}
        torch.set_num_threads(state["threads"])  # with another number, sums would differ in their last bits
        log.info("Continuing at step %d.", state["step"])
        return int(state["step"])

    def _check_finite(self, step: int) -> None:
        for key, values in self.pending.items():
            bad = ~torch.isfinite(torch.stack(values))
            if bad.any():
                first = step + 1 - len(values) + int(bad.int().argmax())
                raise self._diverged(f"{key} of {self.config.algorithm} is not finite at step {first}")
        if not all(bool(torch.isfinite(p).all()) for p in self.algorithm.params):
            raise self._diverged(f"The weights of {self.config.algorithm} are not finite after step {step}")

    def _diverged(self, what: str) -> UserError:
        return UserError(
            f"{what} (hyperparameters {self.config.hparams}). The records and the checkpoint from before that step "
            f"are kept. Try a lower learning rate or a smaller radius."
        )

    def _show(self, step: int, bar: "tqdm[Any]") -> None:
        shown = {key: float(self.pending[key][-1]) for key in ("loss", "agreement") if self.pending.get(key)}
        bar.set_postfix(shown)
        pace = (time.monotonic() - self.began) / (step + 1 - self.first)
        note = {"step": step + 1, "steps": self.config.steps, "seconds_per_step": round(pace, 4)}
        self.folder.progress(note | shown)
        self.shown_at = time.monotonic()


def _model_file(config: RunConfig, experiment: Experiment) -> dict[str, Any]:
    return {
        "args": config.model_dump(mode="json", exclude={"hparams"}),
        "model_hparams": config.hparams,
        **experiment.of_model,
        "model_dict": experiment.algorithm.model.state_dict(),
    }


__all__ = ["Experiment", "Loop", "Stopped", "build", "run"]
