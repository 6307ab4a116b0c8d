"""One step of the further sharpness-aware methods and of those around other ones, as in `literals`."""

import torch
import torch.nn.functional as F
from reference.literals import LITERALS, at, length, loss_and_gradient
from reference.sage_literal import descend, flat, trainable, write


def gsam(network, optimizer, domains, t, *, rho, alpha):
    """g⁺ - α (g - cos(g, g⁺) ‖g‖ g⁺ / ‖g⁺‖), as the paper writes the orthogonal part."""
    loss, g = loss_and_gradient(network, domains)
    loss_perturbed, plus = at(network, flat(trainable(network)) + rho * g / (length(g) + 1e-12), domains)
    cosine = (g * plus).sum() / (length(g) * length(plus))
    descend(network, optimizer, plus - alpha * (g - cosine * length(g) * plus / length(plus)))
    return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": torch.tensor(rho).double()}


def smoothed(network, domains, theta, s):
    """Loss and gradient at θ; with s > 0, Σ_c q_c log(q_c / p_c) of the smoothed labels q, row by row."""
    if not s:
        return at(network, theta, domains)
    own = flat(trainable(network))
    write(network, theta)
    rows = [(network(x[None])[0], int(label)) for xs, ys in domains for x, label in zip(xs, ys, strict=True)]
    divergences = []
    for logits, label in rows:
        C = len(logits)
        q = torch.tensor([1 - s if c == label else s / (C - 1) for c in range(C)], dtype=torch.float64)
        divergences.append((q * (q.log() - F.softmax(logits, 0).log())).sum())
    loss = sum(divergences) / len(divergences)
    g = flat(torch.autograd.grad(loss, trainable(network)))
    write(network, own)
    return loss.detach(), g


def gam(network, optimizer, domains, t, *, grad_rho, grad_norm_rho, grad_gamma, label_smoothing=0.0, reading="code"):
    """Algorithm 2 of the paper with α = 0.6 and β = 0.5; the code has 1 in the place of β in h⁻."""
    theta, s = flat(trainable(network)), label_smoothing
    loss, g0 = smoothed(network, domains, theta, s)
    _, g1 = smoothed(network, domains, theta + grad_rho * g0 / (length(g0) + 1e-12), s)
    h = g1 - g0
    theta2 = theta + grad_norm_rho * h / (length(h) + 1e-12)
    _, g2 = smoothed(network, domains, theta2, s)
    _, g3 = smoothed(network, domains, theta2 + grad_rho * g2 / (length(g2) + 1e-12), s)
    plus = 0.6 * g1 + 0.4 * g3
    minus = (0.5 if reading == "paper" else 1.0) * g0 + 0.5 * g2
    unit = plus / length(plus)
    descend(network, optimizer, plus - grad_gamma * (minus - (minus * unit).sum() * unit))
    return {"loss": loss}


def asam(network, optimizer, domains, t, *, rho, eta=0.01, reading="samsung"):
    loss, g = loss_and_gradient(network, domains)
    T = []
    for name, p in network.named_parameters():
        if reading == "davda54":
            T.append(p.detach().abs())
        else:
            T.append(p.detach().abs() + eta if "weight" in name else torch.ones_like(p))
    T = flat(T)
    epsilon = rho * T**2 * g / length(T * g)
    loss_perturbed, g_perturbed = at(network, flat(trainable(network)) + epsilon, domains)
    descend(network, optimizer, g_perturbed)
    return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": length(epsilon)}


def friendly_sam(network, optimizer, domains, t, *, rho, sigma=1.0, lmbda):
    """The moving average is written beside the optimizer's other state."""
    loss, g = loss_and_gradient(network, domains)
    d = g if t == 0 else g - sigma * optimizer.average
    optimizer.average = g if t == 0 else lmbda * optimizer.average + (1 - lmbda) * g
    loss_perturbed, g_perturbed = at(network, flat(trainable(network)) + rho * d / (length(d) + 1e-12), domains)
    descend(network, optimizer, g_perturbed)
    return {"loss": loss, "loss_perturbed": loss_perturbed}


def fish(network, optimizer, domains, t, *, meta_lr):
    theta = flat(trainable(network))
    for domain in domains:
        loss, g = loss_and_gradient(network, [domain])
        descend(network, optimizer, g)
    write(network, theta + meta_lr * (flat(trainable(network)) - theta))
    return {"loss": loss}


def krylov(network, domains, theta, g, K, e=1e-2):
    """g, Hg, …, H^(K-1) g by differences of gradients, and an orthonormal basis of them, vector by vector."""
    powers = [g]
    for _ in range(K - 1):
        v = powers[-1]
        _, there = at(network, theta + e * v / length(v), domains)
        powers.append((there - g) / e * length(v))
    basis = []
    for v in powers:
        rest = v.clone()
        for b in basis:
            rest = rest - (b @ rest) * b
        basis.append(rest / length(rest))
    return powers, basis


def crossing(height, alpha, brackets, sections):
    """Where the height along a ray becomes 0: doubling and halving, then golden section of its absolute value."""
    low, high, golden = 0.0, None, (5**0.5 - 1) / 2
    for _ in range(brackets):
        if height(alpha) < 0:
            low = alpha
        else:
            high = alpha
        alpha = 2 * alpha if high is None else (low + high) / 2
    high = low if high is None else high
    for _ in range(sections):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if abs(height(left)) < abs(height(right)):
            high = right
        else:
            low = left
    return (low + high) / 2


def boa(
    network, optimizer, domains, t, *, warmup, warmup_steps, rho, delta, krylov_dim, brackets, sections, step=0.5
):  # fmt: skip
    """A bounce on the walls of the region of low loss; θ₀, p and the basis stand beside the optimizer's state."""
    if t < warmup_steps:
        return {
            "loss": LITERALS[warmup](network, optimizer, domains, t, **({"rho": rho} if warmup == "SAM" else {}))[
                "loss"
            ]
        }
    theta = flat(trainable(network))
    if t == warmup_steps:
        _, g = loss_and_gradient(network, domains)
        powers, basis = krylov(network, domains, theta, g, krylov_dim)
        optimizer.boa = theta, -sum(powers), basis
    start, p, basis = optimizer.boa
    wall = at(network, start, domains)[0] + delta
    alpha = crossing(lambda a: at(network, theta + a * p, domains)[0] - wall, step, brackets, sections)
    write(network, theta + alpha * p)
    loss, g = loss_and_gradient(network, domains)
    n = -sum((b @ g) * b for b in basis)
    n = n / length(n)
    if n @ p < 0:
        p = p - 2 * (n @ p) * n
    optimizer.boa = start, p, basis
    return {"loss": loss, "loss_wall": wall, "alpha": alpha}


def around(network, optimizer, domains, t, *, around, around_hparams):
    """What averages weights leaves every step as it is."""
    return LITERALS[around](network, optimizer, domains, t, **around_hparams)


def zero_shot(network, optimizer, domains, t):
    return {"loss": loss_and_gradient(network, domains)[0]}


SHARPNESS = {
    "GSAM": gsam,
    "GAM": gam,
    "ASAM": asam,
    "FriendlySAM": friendly_sam,
    "Fish": fish,
    "BOA": boa,
    "SWAD": around,
    "BetaAverage": around,
    "ZeroShot": zero_shot,
}
