"""Impartial multi-task learning."""

import torch
from torch import Tensor

from domainbed_sage.algorithms.solvers.base import GramSolver, register
from domainbed_sage.algorithms.solvers.simplex import unit_rows

RIDGE = 1e-15


def impartial_weights(G: Tensor) -> Tensor:
    """Weights w [K] with sum 1 whose Σ_k w_k g_k has equal projections on all g_k / |g_k|; 0 for a zero gradient.

    w_k ∝ u_k / |g_k| with C u = 1. Of dependent gradients, a ridge as small as rounding picks the u in the limit of
    equal disturbances: equal weights for equal gradients, no direction at all for opposite ones.
    """
    C, e, nonzero = unit_rows(G)
    C = C + torch.diag((~nonzero).to(C) + RIDGE)
    w = e * torch.linalg.solve_ex(C, nonzero.to(C)).result
    return w / torch.where(nonzero.any(), w.sum(), 1)


@register("IMTL-G")
class IMTLG(GramSolver):
    """The direction with equal projections on all gradients' unit vectors, and weights that sum to 1.

    Weights may be negative, and grow without bound as the sum of the u nears 0: that is the method's own. Zero
    gradients get the weight 0. With one task d = g.

    Source: Liu et al., ICLR 2021, Eq. 6; the gradients are those of the shared parameters, as in AvivNavon/nash-mtl.

    Differences from the authors' code: a zero gradient makes all of its weights NaN; where gradients are dependent,
    they are what rounding makes of them.
    """

    paper = "Liu et al., ICLR 2021"

    def solve(self, G: Tensor) -> Tensor:
        """See `GramSolver.solve`."""
        return impartial_weights(G)
