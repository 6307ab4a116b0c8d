"""The base optimisers OPT, by name."""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from domainbed_sage.core.hparams import Power
from domainbed_sage.core.registry import Registry

optimizers: Registry[Callable[..., torch.optim.Optimizer]] = Registry("optimizer", Callable)

LearningRate = Annotated[float, Field(gt=0), Power(10, -5, -3.5)]
WeightDecay = Annotated[float, Field(ge=0), Power(10, -6, -2)]
Beta = Annotated[float, Field(ge=0, lt=1)]


@optimizers.register("adam")
def adam(
    params: Sequence[nn.Parameter],
    *,
    lr: LearningRate = 5e-5,
    weight_decay: WeightDecay = 0.0,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
) -> torch.optim.Optimizer:
    """Adam as in DomainBed and in SAGE's Appendix E; the weight decay is coupled: λθ is added to the gradient.

    Args:
        params: what to optimise.
        lr: learning rate; DomainBed's default, which a model may replace by its own (CLIP: 1e-6).
        weight_decay: λ.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
    """
    return torch.optim.Adam(params, lr=lr, weight_decay=weight_decay, betas=(beta1, beta2), fused=_fused(params))


@optimizers.register("amsgrad")
def amsgrad(
    params: Sequence[nn.Parameter],
    *,
    lr: LearningRate = 5e-5,
    weight_decay: WeightDecay = 0.0,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
) -> torch.optim.Optimizer:
    """Adam that divides by the largest second moment so far: the inner optimiser of Fish's own code."""
    betas = (beta1, beta2)
    return torch.optim.Adam(params, lr, betas, weight_decay=weight_decay, amsgrad=True, fused=_fused(params))


@optimizers.register("adamw")
def adamw(
    params: Sequence[nn.Parameter],
    *,
    lr: LearningRate = 5e-5,
    weight_decay: WeightDecay = 0.0,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
) -> torch.optim.Optimizer:
    """AdamW: as `adam`, with decoupled weight decay θ ← θ - lr λ θ (CLIPood's choice)."""
    return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, betas=(beta1, beta2), fused=_fused(params))


@optimizers.register("sgd")
def sgd(
    params: Sequence[nn.Parameter],
    *,
    lr: LearningRate = 5e-5,
    weight_decay: WeightDecay = 0.0,
    momentum: Beta = 0.9,
) -> torch.optim.Optimizer:
    """SGD with momentum and coupled weight decay."""
    return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=_fused(params))


def _fused(params: Sequence[nn.Parameter]) -> bool:
    """Whether PyTorch has one kernel for a step of all parameters; it has none on the meta device."""
    return all(p.device.type != "meta" for p in params)
