"""Multiple-gradient descent."""

from typing import Literal

from torch import Tensor

from domainbed_sage.algorithms.solvers import authors
from domainbed_sage.algorithms.solvers.base import GramSolver, Tasks, register
from domainbed_sage.algorithms.solvers.simplex import shortest


@register("MGDA")
class MGDA(GramSolver):
    """The shortest convex combination of the gradients; ⟨d, g_k⟩ ≥ |d|² for all k.

    It is 0 where a convex combination vanishes, e.g. with a zero or two opposite gradients. Equal gradients get equal
    weights. With one task d = g.

    Source: Désidéri, 2012; Sener and Koltun, NeurIPS 2018, Eq. 3, without their normalisation of the gradients.

    Args:
        tasks: see `Tasks`.
        solution: "exact", or "authors": pairs of tasks and projected gradient steps, in which two tasks get no weight
            below 0.001; that is done on the CPU, and waits for the device.
        times_k: whether the weights are multiplied by K, as in the codes for scenes.

    Differences from the authors' code: "exact" has no such bound, which makes the direction too long where the lengths
    of the gradients differ by orders; "authors" ends after 250 steps, where most copies never count them.
    """

    paper = "Sener and Koltun, NeurIPS 2018"

    def __init__(self, tasks: Tasks, *, solution: Literal["exact", "authors"] = "exact", times_k: bool = True) -> None:
        super().__init__(tasks)
        self.exact, self.factor_k = solution == "exact", times_k

    def solve(self, G: Tensor) -> Tensor:
        """See `GramSolver.solve`."""
        return shortest(G) if self.exact else authors.min_norm(G)
