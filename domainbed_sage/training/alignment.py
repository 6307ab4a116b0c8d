"""How far the source domains' gradient points where the held-out domain's does: Fig. 5 of SAGE, watched, never used."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.seeding import seed_hash
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.data.stream import TrainStream
from domainbed_sage.geometry.vectors import agreement, gram
from domainbed_sage.training.evaluate import Evaluator
from domainbed_sage.training.experiment import Experiment

NAME = "unseen_alignment"  # in records


class Alignment:
    """The cosine of the mean gradient of the source domains and the gradient of held-out images, before every step.

    Both are of the plain loss, at the weights that the step starts from, with layers as in training: of the step's
    minibatch, and of one of as many rows from each held-out environment's in split, augmented alike. Which rows, is a
    pure function of the run's seed and the step. Two more passes a step are the price; weights, buffers and random
    numbers of the run stay as they are, bit for bit.

    A record has the mean over the steps since the one before; over those that were watched, where a restart began or
    ceased to watch; NaN where a gradient is not finite.

    Raises:
        UserError: the run has no held-out domain, or trains nothing.
    """

    def __init__(self, experiment: Experiment) -> None:
        seen, evaluator = experiment.stream, experiment.evaluator
        self.algorithm, self.normalize = experiment.algorithm, experiment.normalize
        if not isinstance(seen, TrainStream) or not isinstance(evaluator, Evaluator):
            raise UserError(
                "--log_alignment compares the gradients of source domains and of a held-out one. This run has several "
                "tasks and no such domain. Leave the flag out."
            )
        if not self.algorithm.params:
            raise UserError(
                f"{self.algorithm.name} trains nothing, so it has no gradients to compare. Leave the flag out."
            )
        self.unseen = TrainStream(
            [evaluator.environments[i] for i in evaluator.test_envs],
            [evaluator.splits[i].in_ for i in evaluator.test_envs],
            seen.batch_size,
            seen.transform,
            seed_hash(seen.seed, "unseen"),
        )
        self.values: list[Tensor | float] = []  # of the steps since the last record; floats, of those before a restart

    def note(self, step: int, batch: DomainBatch) -> None:
        """Measure the cosine at the present weights, with the minibatch of this step."""
        unseen = self.unseen[step].to(batch.x.device).map(self.normalize)
        with undisturbed(self.algorithm.model, batch.x.device), torch.enable_grad():
            g = [self.algorithm.objectives.mean_gradient(rows)[1] for rows in (batch, unseen)]
        self.values.append(agreement(gram(g)))

    def record(self) -> dict[str, float]:
        """The mean since the last record, for this one; nothing where no step was watched."""
        values, self.values = [float(value) for value in self.values], []
        return {NAME: fmean(values)} if values else {}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"values": [float(value) for value in self.values]}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Continue from a checkpoint; None if it was written without."""
        self.values = list((state or {"values": []})["values"])


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Passes in the block leave no trace: random generators are put back, and only copies of buffers change."""
    buffers = [(m, name, b) for m in model.modules() for name, b in m._buffers.items() if b is not None]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            for module, name, buffer in buffers:
                module._buffers[name] = buffer.clone()
            yield
        finally:
            for module, name, buffer in buffers:
                module._buffers[name] = buffer
