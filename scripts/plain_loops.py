"""One training step of ERM, SAM and SAGE each in plain PyTorch: the baseline of `bench_step.py`.

The code is deliberately plain. SAGE is Algorithm 1 of the paper line by line: K backward passes over one joint graph,
flattened gradients, Newton-Schulz matrix by matrix. The tests check that all three equal the package's algorithms.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from domainbed_sage.data.batch import DomainBatch


def erm(model: nn.Module, optimizer: Optimizer, batch: DomainBatch) -> None:
    """One backward pass through the loss of all rows and one optimizer step."""
    optimizer.zero_grad()
    F.cross_entropy(model(batch.x), batch.y).backward()
    optimizer.step()


def sam(model: nn.Module, optimizer: Optimizer, batch: DomainBatch, rho: float = 0.05) -> None:
    """Move by ρ along the gradient, compute the gradient there, restore the weights, and step."""
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer.zero_grad()
    F.cross_entropy(model(batch.x), batch.y).backward()
    clean = [p.detach().clone() for p in params]
    with torch.no_grad():
        length = torch.stack([p.grad.norm() for p in params]).norm()
        for p in params:
            p.add_(rho * p.grad / (length + 1e-12))
    optimizer.zero_grad()
    F.cross_entropy(model(batch.x), batch.y).backward()
    with torch.no_grad():
        for p, w in zip(params, clean, strict=True):
            p.copy_(w)
    optimizer.step()


def newton_schulz(G: Tensor, steps: int = 5) -> Tensor:
    """Muon's iteration on one matrix [m, n]."""
    X = G / (G.norm() + 1e-7)
    X = X.T if G.shape[0] > G.shape[1] else X
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.T if G.shape[0] > G.shape[1] else X


def domain_gradients(model: nn.Module, batch: DomainBatch) -> list[tuple[Tensor, ...]]:
    """K backward passes over the graph of one joint forward pass (lines 4 to 7)."""
    params = [p for p in model.parameters() if p.requires_grad]
    logits = model(batch.x).split(batch.sizes)
    losses = [F.cross_entropy(z, y) for z, (_, y) in zip(logits, batch.domains(), strict=True)]
    return [
        torch.autograd.grad(loss, params, retain_graph=k + 1 < len(losses), allow_unused=True, materialize_grads=True)
        for k, loss in enumerate(losses)
    ]


def agreement(grads: list[tuple[Tensor, ...]]) -> Tensor:
    """Mean pairwise cosine of the flattened gradients (line 11)."""
    flat = [torch.cat([t.flatten() for t in g]) for g in grads]
    pairs = [(i, j) for i in range(len(flat)) for j in range(i + 1, len(flat))]
    cosines = [F.cosine_similarity(flat[i], flat[j], dim=0) for i, j in pairs]
    return torch.stack(cosines).mean() if pairs else flat[0].new_ones(())


def sage(
    model: nn.Module, optimizer: Optimizer, batch: DomainBatch, rho: float = 1e-6, gamma: float = 1e-6
) -> dict[str, Tensor]:
    """Algorithm 1 of SAGE."""
    params = [p for p in model.parameters() if p.requires_grad]
    grads = domain_gradients(model, batch)
    weights = [n / len(batch.x) for n in batch.sizes]
    g = [sum(w * t for w, t in zip(weights, parts, strict=True)) for parts in zip(*grads, strict=True)]
    S = agreement(grads)
    clean = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, G in zip(params, g, strict=True):
            if p.ndim >= 2:
                p.add_(rho * p.norm() * newton_schulz(G.flatten(1)).reshape(p.shape))
            else:
                p.add_(rho * G / G.norm().clamp_min(1e-12))
    optimizer.zero_grad()
    F.cross_entropy(model(batch.x), batch.y).backward()
    with torch.no_grad():
        for p, w in zip(params, clean, strict=True):
            p.copy_(w)
            p.grad.add_(gamma * (1 - S) * torch.randn_like(p))
    optimizer.step()
    return {"agreement": S}


STEPS: dict[str, Callable[..., object]] = {"plain ERM": erm, "plain SAM": sam, "literal SAGE": sage}
