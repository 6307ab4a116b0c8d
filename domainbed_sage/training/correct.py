"""Keep which held-out images are classified correctly, at the checkpoints whose accuracy tables report."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed_sage.results import correctness
from domainbed_sage.results.correctness import Correct
from domainbed_sage.training.evaluate import Accuracies, Evaluator

log = logging.getLogger(__name__)


class CorrectImages:
    """The bits of the checkpoint that training-domain selection chooses so far, and of the last step.

    A run of which a part ran without this may lack the former.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.best = float("-inf")  # highest source out accuracy so far
        self.kept: dict[int, dict[int, Tensor]] = {}  # by step and environment, uint8 [bytes]
        self.is_lost = False  # whether the best checkpoint was one of the time without this

    def note(self, step: int, found: Accuracies, *, last: bool, is_ending: bool) -> None:
        """Keep the bits of the evaluation that was just recorded, if tables may report it.

        Args:
            step: training step.
            found: its accuracies.
            last: whether it is the last step.
            is_ending: whether the method ends in the weights that were evaluated, so that no others are selected.
        """
        source = self.evaluator.source_accuracy(found)
        if source > self.best or is_ending:
            self.best, self.kept, self.is_lost = source, {}, False
        elif not last:
            return
        self.kept[step] = {env: torch.from_numpy(np.packbits(own)) for env, own in self.evaluator.correct.items()}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"best": self.best, "kept": self.kept, "is_lost": self.is_lost}

    def load_state_dict(self, state: Mapping[str, Any] | None, best: float) -> None:
        """Continue from a checkpoint.

        Args:
            state: what it holds of this; None if it was written without.
            best: highest source out accuracy before it.
        """
        state = state or {"best": best, "kept": {}, "is_lost": True}
        self.best, self.kept, self.is_lost = state["best"], dict(state["kept"]), state["is_lost"]

    def write(self, folder: Path) -> None:
        """Write the file of a run's folder.

        Raises:
            UserError: it cannot be written.
        """
        if self.is_lost:
            log.warning(
                "A part of this run ran without --keep_correctness: %s holds the last step, and not the checkpoint "
                "that training-domain selection chooses.",
                folder / correctness.FILE,
            )
        correctness.write(folder, {env: self._environment(env) for env in sorted(self.evaluator.test_envs)})

    def _environment(self, env: int) -> Correct:
        environment, rows = self.evaluator.environments[env], self.evaluator.splits[env].in_
        tested = np.zeros(len(environment), bool)
        tested[rows] = True
        at = {}
        for step, kept in self.kept.items():
            at[step] = np.zeros(len(environment), bool)
            at[step][rows] = np.unpackbits(kept[env].numpy(), count=len(rows))
        return Correct(correctness.identity(environment.keys), tested, at)
