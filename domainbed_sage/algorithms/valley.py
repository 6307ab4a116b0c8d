"""SWAD's choice of the weights to average, from the validation loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domainbed_sage.algorithms.averages import Average
from domainbed_sage.geometry.vectors import Vector


@dataclass(frozen=True)
class Segment:
    """The steps between two evaluations: the mean of their weights, the loss after the last one, first and last step.

    Equal only to itself.
    """

    vector: Vector
    loss: float
    start: int
    end: int


class LossValley:
    """Mean of the segments in which the loss stays low, from its convergence on until it has risen for good.

    The rule is that of the authors' code, whose details differ from the paper's Algorithm 1:

    1. It converges when the first of the last N_s losses is the smallest of them (the first of equals); that segment is
       c. The threshold is (1 + r) times the mean of these losses, the average a copy of c that the first addition
       overwrites.
    2. With N_e < N_s the N_s - N_e segments after c are added. With N_e > N_s, of the oldest N_e - N_s + 1 of the last
       N_e segments those are added that are more than one behind the last one above the threshold (or, if there is
       none, behind the first).
    3. At every later evaluation, once the oldest of the last N_e segments is not older than c: if all of them are above
       the threshold, the valley is dead and nothing more is added; otherwise the oldest is added, perhaps again.
    4. At the end of a valley that is not dead, the oldest is dropped, and the next one added for as long as one of the
       remaining is not above the threshold.

    All segments count alike, however long they are.

    Args:
        n_converge: N_s.
        n_tolerance: N_e.
        tolerance_ratio: r.

    Attributes:
        dead: whether the loss has risen for good.
        converged: first and last step of c; `None` before.
        threshold: of the loss; `None` before.
        added: first and last steps of the segments in the average, one entry for each addition.
    """

    def __init__(self, n_converge: int, n_tolerance: int, tolerance_ratio: float) -> None:
        self.n_converge, self.n_tolerance, self.tolerance_ratio = n_converge, n_tolerance, tolerance_ratio
        self.queue: list[Segment] = []
        self.average: Average | None = None
        self.dead = False
        self.converged: tuple[int, int] | None = None
        self.threshold: float | None = None
        self.added: list[tuple[int, int]] = []

    @property
    def tolerated(self) -> list[Segment]:
        """The last N_e segments."""
        return self.queue[-self.n_tolerance :]

    def note(self, segment: Segment) -> None:
        """Take in the segment that ends with this evaluation; a dead valley does not."""
        if self.dead:
            return
        self.queue = [*self.queue, segment][-max(self.n_converge, self.n_tolerance) :]
        if self.converged is None:
            self._look_for_convergence(self.queue[-self.n_converge :])
        elif self.tolerated[0].end >= self.converged[1]:
            if self._is_above(self.tolerated):
                self.dead, self.queue = True, []
            else:
                self._add(self.tolerated[:1])

    def ended(self) -> Vector:
        """The weights that SWAD ends in; the last segment's if the loss never converged. To be called once."""
        if self.average is None:
            return self.queue[-1].vector
        rest = self.tolerated[1:]
        while rest and not self._is_above(rest):
            self._add(rest[:1])
            del rest[0]
        return self.average.vector

    @property
    def steps(self) -> tuple[int, int]:
        """First and last step in the average."""
        spans = self.added or [self.converged or (self.queue[-1].start, self.queue[-1].end)]
        return min(start for start, _ in spans), max(end for _, end in spans)

    def _look_for_convergence(self, recent: list[Segment]) -> None:
        n_c, n_t, c = self.n_converge, self.n_tolerance, recent[0]
        if len(recent) < n_c or c.loss > min(s.loss for s in recent):
            return
        self.converged = (c.start, c.end)
        self.threshold = (1 + self.tolerance_ratio) * sum(s.loss for s in recent) / n_c
        self.average = Average(c.vector)
        self.average.load_state_dict({"vector": c.vector, "weight": 0.0})
        if n_t < n_c:
            self._add(recent[1 : 1 + n_c - n_t])
        elif n_t > n_c:
            oldest = self.tolerated[: n_t - n_c + 1]
            above = [i for i, s in enumerate(oldest) if self._is_above([s])]
            self._add(oldest[above[-1] + 2 if above else 1 :])

    def _is_above(self, segments: Sequence[Segment]) -> bool:
        assert self.threshold is not None
        return min(s.loss for s in segments) > self.threshold

    def _add(self, segments: Sequence[Segment]) -> None:
        assert self.average is not None
        for s in segments:
            self.average.add(s.vector)
            self.added.append((s.start, s.end))

    def state_dict(self) -> dict[str, Any]:
        """Everything a restart needs."""
        names = ("dead", "converged", "threshold", "added")
        queue = [{"vector": list(s.vector), "loss": s.loss, "start": s.start, "end": s.end} for s in self.queue]
        average = self.average.state_dict() if self.average else None
        return {name: getattr(self, name) for name in names} | {"queue": queue, "average": average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.dead, self.threshold, converged = state["dead"], state["threshold"], state["converged"]
        self.converged = tuple(converged) if converged else None
        self.added = [(start, end) for start, end in state["added"]]
        self.queue = [Segment(**{**s, "vector": tuple(s["vector"])}) for s in state["queue"]]
        if state["average"] is not None:
            self.average = Average(tuple(state["average"]["vector"]))
            self.average.load_state_dict(state["average"])
