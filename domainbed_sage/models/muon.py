"""Muon: momentum that is orthogonalised, for weight matrices; AdamW for the other parameters."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.core.hparams import Power
from domainbed_sage.geometry.polar import polar_factors
from domainbed_sage.models.optimizers import Beta, WeightDecay, optimizers


class Muon(torch.optim.Optimizer):
    """W ← (1 - lr λ) W - lr √max(1, m/n) Q for each matrix W [m, n], with Q the polar factor of Nesterov's momentum.

    M ← μ M + (1 - μ) g, and Q = NewtonSchulz5((1 - μ) g + μ M). A tensor of more than two dimensions is taken as
    [first dimension, rest].

    Source: Jordan et al., Muon, 2024, `SingleDeviceMuonWithAuxAdam`.

    Differences from the source: the iterations run in the precision of the weights and not in bfloat16, whose distances
    `polar_factor` describes.
    """

    def __init__(self, params: Sequence[nn.Parameter], lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the parameters that have a gradient."""
        del closure
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            momenta = [self._nesterov(p, p.grad, group["momentum"]) for p in params if p.grad is not None]
            factors = polar_factors([m.flatten(1) for m in momenta])
            for p, Q in zip(params, factors, strict=True):
                tall = max(1.0, Q.shape[0] / Q.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(Q.view_as(p), alpha=-group["lr"] * tall)

    def _nesterov(self, p: Tensor, g: Tensor, momentum: float) -> Tensor:
        M: Tensor = self.state[p].setdefault("momentum", torch.zeros_like(p)).lerp_(g, 1 - momentum)
        return torch.lerp(g, M, momentum)


class MuonWithAux(torch.optim.Optimizer):
    """Muon for some parameters and AdamW for the rest, as one optimizer: one `step`, one state."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = [part for part in parts if part.param_groups[0]["params"]]
        super().__init__([p for part in self.parts for p in part.param_groups[0]["params"]], {})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        del closure
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the states of the parts."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


@optimizers.register("muon")
def muon(
    params: Sequence[nn.Parameter],
    *,
    lr: Annotated[float, Field(gt=0), Power(10, -3, -1)] = 0.02,
    weight_decay: WeightDecay = 0.0,
    momentum: Beta = 0.95,
    muon_params: Literal["hidden", "matrices"] = "hidden",
    aux_lr: Annotated[float, Field(gt=0), Power(10, -5, -3.5)] = 3e-4,
    aux_weight_decay: WeightDecay = 0.0,
    aux_beta1: Beta = 0.9,
    aux_beta2: Beta = 0.95,
    aux_eps: Annotated[float, Field(gt=0)] = 1e-10,
) -> torch.optim.Optimizer:
    """Muon for weight matrices, AdamW for everything else (SAGE's Fig. 3).

    Args:
        params: what to optimise.
        lr: learning rate of Muon; a matrix moves by about this much in each of its singular directions.
        weight_decay: λ of Muon, decoupled.
        momentum: μ.
        muon_params: the matrices that Muon moves: ``matrices``: every parameter of two or more dimensions; ``hidden``:
            those but the first and the last, which are embedding and classifier, as its author advises.
        aux_lr: learning rate of AdamW.
        aux_weight_decay: λ of AdamW.
        aux_beta1: decay of AdamW's first moment.
        aux_beta2: decay of AdamW's second moment.
        aux_eps: AdamW's ε.
    """
    matrices = [p for p in params if p.ndim >= 2]
    moved = matrices if muon_params == "matrices" else matrices[1:-1]
    chosen = {id(p) for p in moved}
    rest = [p for p in params if id(p) not in chosen]
    parts: list[torch.optim.Optimizer] = []
    parts += [Muon(moved, lr, weight_decay, momentum)] if moved else []
    betas = (aux_beta1, aux_beta2)
    parts += [torch.optim.AdamW(rest, aux_lr, betas, aux_eps, weight_decay=aux_weight_decay)] if rest else []
    return MuonWithAux(parts)
