"""α-fair combinations of gradients, and the Nash bargaining solution, which is one of them."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainbed_sage.algorithms.solvers import authors
from domainbed_sage.algorithms.solvers.base import GramSolver, Tasks, register
from domainbed_sage.algorithms.solvers.simplex import unit_rows
from domainbed_sage.core.hparams import Choice

NEWTON_STEPS = 60
SOLVED = 1e-3  # largest relative residual; 1e-12 is usual, 1e-7 where all but 1e-8 of the gradients cancels


def fair_weights(G: Tensor, alpha: float) -> Tensor:
    """The positive weights w [K] with G w = w^(-1/α); 0 for a zero gradient; NaN where there are none.

    They minimise the convex ½ wᵀGw - Σ_k φ(w_k), φ'(w) = w^(-1/α). Newton's method with the longest steps for which
    the third derivative guarantees a descent, in w_k = u_k / |g_k|: C u = t u^(-1/α) with the cosines C.
    """
    power = 1 / alpha
    C, _, nonzero = unit_rows(G)
    length = torch.where(nonzero, G.diagonal().clamp_min(0), 1).sqrt()
    C = C + torch.diag((~nonzero).to(C))  # a zero gradient is alone
    log_t = (power - 1) * length.log()
    u = (log_t / (1 + power)).exp()
    for _ in range(NEWTON_STEPS):
        pull = (log_t - power * u.log()).exp()
        du = torch.linalg.solve_ex(C + torch.diag(power * pull / u), pull - C @ u).result
        u = u * _ratio(du / u, alpha)
    residual = (C @ u / (log_t - power * u.log()).exp() - 1).abs().max()
    return torch.where(nonzero, torch.where(residual < SOLVED, u / length, torch.nan), 0)


def _ratio(relative: Tensor, alpha: float) -> Tensor:
    """What the point [K] is multiplied by in a Newton step, given relative to it, that is cut to lower the function."""
    r = relative.abs().max().clamp_min(1e-30)
    least = -alpha * torch.log1p(r / alpha)
    share = -torch.expm1(least) / r
    return torch.maximum(1 + share * relative, least.exp())


@register("FairGrad")
class FairGrad(GramSolver):
    """The direction of the α-fair improvements: ⟨d, g_k⟩ = w_k^(-1/α) for d = Σ_k w_k g_k.

    α → 0 weighs all tasks alike, α = 1 is Nash-MTL, α → ∞ makes all ⟨d, g_k⟩ equal. A zero gradient gets the weight 0.
    If a convex combination of the gradients vanishes, as that of two opposite ones, no such w exists: all are NaN, and
    the run stops. With one task d = g / |g|^(2 α / (1 + α)).

    Source: Ban and Ji, ICML 2024, Eq. 5; OptMN-Lab/fairgrad.

    Args:
        tasks: see `Tasks`.
        alpha: α.
        max_norm: see `Solver`.
        solution: "exact", "authors": scipy's least squares of G w - w^(-1/α) from w = 1/K, or "samo": of
            (G w)^α - 1/w, as in OptMN-Lab/SAMO. Those two run on the CPU, and wait for the device.

    Differences from the authors' code: least squares stop far from the solution for gradients below 1e-2, in SAMO's
    form also for strongly opposed ones; the default does not.
    """

    paper = "Ban and Ji, ICML 2024"
    heads = "plain"
    factor_k = True

    def __init__(
        self,
        tasks: Tasks,
        *,
        alpha: Annotated[float, Field(ge=0.5, le=10), Choice(0.5, 1.0, 2.0, 5.0)] = 2.0,
        max_norm: Annotated[float, Field(gt=0)] = 1.0,
        solution: Literal["exact", "authors", "samo"] = "exact",
    ) -> None:
        super().__init__(tasks)
        self.alpha, self.max_norm, self.solution = alpha, max_norm, solution

    def solve(self, G: Tensor) -> Tensor:
        """See `GramSolver.solve`."""
        if self.solution == "exact":
            return fair_weights(G, self.alpha)
        return authors.fair_least_squares(G, self.alpha, self.solution == "samo")


@register("Nash-MTL")
class NashMTL(GramSolver):
    """The Nash bargaining solution w_k ⟨d, g_k⟩ = 1 for d = Σ_k w_k g_k, which does not depend on the losses' scales.

    It is FairGrad with α = 1, with weighted heads. See there for zero and opposite gradients; the head of a task whose
    gradient is 0 stays as well. With one task d = g / |g|.

    Source: Navon et al., ICML 2022, Claim 3.1; AvivNavon/nash-mtl.

    Args:
        tasks: see `Tasks`.
        max_norm: see `Solver`.

    Differences from the authors' code: the exact solution in every step, where 20 convex programs approach it; where
    those fail, their code silently keeps the last weights, at the beginning equal ones.
    """

    paper = "Navon et al., ICML 2022"

    def __init__(self, tasks: Tasks, *, max_norm: Annotated[float, Field(gt=0)] = 1.0) -> None:
        super().__init__(tasks)
        self.max_norm = max_norm

    def solve(self, G: Tensor) -> Tensor:
        """See `GramSolver.solve`."""
        return fair_weights(G, 1.0)
