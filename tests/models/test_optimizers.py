"""The base optimisers against literal transcriptions of their papers, step by step, in float64."""

import pytest
import torch
from properties import assert_close
from torch import nn

from domainbed_sage.models.optimizers import optimizers

LR, DECAY = 0.1, 0.2
START = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
GRADIENTS = [torch.tensor(g, dtype=torch.float64) for g in ([0.5, -1.0, 0.0], [-3.0, 0.1, 0.0], [0.2, 0.2, 0.0])]


def trained(name, **hparams):
    """The parameter after each step."""
    parameter = nn.Parameter(START.clone())
    optimizer = optimizers[name]([parameter], lr=LR, **hparams)
    path = []
    for g in GRADIENTS:
        parameter.grad = g.clone()
        optimizer.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


def adam_by_hand(weight_decay, beta1, beta2, *, decoupled):
    """Kingma & Ba, Algorithm 1; the decay is added to the gradient, or is Loshchilov & Hutter's, Algorithm 2."""
    theta, m, v, path = START, torch.zeros(3), torch.zeros(3), []
    for t, g in enumerate(GRADIENTS, 1):
        if decoupled:
            theta = theta - LR * weight_decay * theta
        else:
            g = g + weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        theta = theta - LR * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + 1e-8)
        path.append(theta)
    return torch.stack(path)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])
@pytest.mark.parametrize("weight_decay", [0.0, DECAY])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_and_adamw(name, weight_decay, beta1, beta2):
    found = trained(name, weight_decay=weight_decay, beta1=beta1, beta2=beta2)
    assert_close(found, adam_by_hand(weight_decay, beta1, beta2, decoupled=name == "adamw"), 1e-12)


def test_the_defaults_are_adams():
    for name in ("adam", "adamw"):
        assert_close(trained(name), adam_by_hand(0.0, 0.9, 0.999, decoupled=False), 1e-12)


def test_decoupled_decay_shrinks_what_has_no_gradient():
    """θ ← θ - lr λ θ; Adam would divide the decay by its own size, and take a whole step of lr."""
    assert_close(
        trained("adamw", weight_decay=DECAY)[:, 2],
        3 * (1 - LR * DECAY) ** torch.arange(1.0, 4.0, dtype=torch.float64),
        1e-12,
    )
    assert_close(trained("adam", weight_decay=DECAY)[0, 2], 3 - LR, 1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(momentum):
    theta, b, path = START, torch.zeros(3), []
    for g in GRADIENTS:
        b = momentum * b + g + DECAY * theta
        theta = theta - LR * b
        path.append(theta)
    assert_close(trained("sgd", weight_decay=DECAY, momentum=momentum), torch.stack(path), 1e-12)
