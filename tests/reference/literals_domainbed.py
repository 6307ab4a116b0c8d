"""One step of methods of DomainBed, written naively: row by row, gradients by `backward` or by hand.

Arguments and result as in `literals`. State between steps is kept on the optimizer, whose own is cleared where a method
makes it anew. Golden trajectories have domains of equal size alone; these are of any size.
"""

import math

import torch
import torch.nn.functional as F
from reference.sage_literal import descend, domain_gradients, flat, trainable


def step_along(network, optimizer, objective):
    """Differentiate a scalar and do one step."""
    for p in trainable(network):
        p.grad = torch.zeros_like(p)
    objective.backward()
    descend(network, optimizer, flat([p.grad for p in trainable(network)]))


def penalty_weight(optimizer, t, weight, start, before):
    """The weight from step `start` on, `before` it another; the optimizer forgets its state at that step."""
    if t == start:
        optimizer.state.clear()
    return weight if t >= start else before


def mean(values):
    return sum(values) / len(values)


def derivative_at_scale_one(logits, y):
    scale = torch.ones((), dtype=logits.dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(F.cross_entropy(scale * logits, y), scale, create_graph=True)
    return slope


def irm(network, optimizer, domains, t, *, irm_lambda, irm_penalty_anneal_iters):
    weight = penalty_weight(optimizer, t, irm_lambda, irm_penalty_anneal_iters, 1.0)
    logits = [network(x) for x, _ in domains]
    nll = mean([F.cross_entropy(z, y) for z, (_, y) in zip(logits, domains, strict=True)])
    penalty = mean(
        [
            derivative_at_scale_one(z[0::2], y[0::2]) * derivative_at_scale_one(z[1::2], y[1::2])
            for z, (_, y) in zip(logits, domains, strict=True)
        ]
    )
    loss = nll + weight * penalty
    step_along(network, optimizer, loss)
    return {"loss": loss.detach(), "nll": nll.detach(), "penalty": penalty.detach()}


def vrex(network, optimizer, domains, t, *, vrex_lambda, vrex_penalty_anneal_iters):
    """Differentiated by hand: Σ_k (1 + 2λ (L_k - mean L)) g_k / K."""
    weight = penalty_weight(optimizer, t, vrex_lambda, vrex_penalty_anneal_iters, 1.0)
    losses, g = domain_gradients(network, domains)
    variance = mean([(L - mean(losses)) ** 2 for L in losses])
    step = mean([(1 + 2 * weight * (L - mean(losses))) * g_k for L, g_k in zip(losses, g, strict=True)])
    loss, nll = mean(losses) + weight * variance, losses[-1]
    descend(network, optimizer, step)
    return {"loss": loss, "nll": nll, "penalty": variance}


def groupdro(network, optimizer, domains, t, *, groupdro_eta):
    losses, g = domain_gradients(network, domains)
    q = getattr(optimizer, "q", [1 / len(domains)] * len(domains))
    raised = [q_k * math.exp(groupdro_eta * float(L)) for q_k, L in zip(q, losses, strict=True)]
    optimizer.q = q = [r / sum(raised) for r in raised]
    descend(network, optimizer, sum(q_k * g_k for q_k, g_k in zip(q, g, strict=True)))
    return {"loss": sum(q_k * L for q_k, L in zip(q, losses, strict=True)), "largest_weight": max(q)}


def sd(network, optimizer, domains, t, *, sd_reg):
    logits, y = network(torch.cat([x for x, _ in domains])), torch.cat([y for _, y in domains])
    loss, penalty = F.cross_entropy(logits, y), mean([mean([z**2 for z in row]) for row in logits])
    step_along(network, optimizer, loss + sd_reg * penalty)
    return {"loss": loss.detach(), "penalty": penalty.detach()}


def kernel(a, b):
    distance = ((a - b) ** 2).sum()
    return sum(torch.exp(-(10.0**power) * distance) for power in range(-3, 4))


def discrepancy(x, y):
    """MMD² of rows x and y: all pairs, each row with itself included."""
    within = [mean([kernel(a, b) for a in rows for b in rows]) for rows in (x, y)]
    return sum(within) - 2 * mean([kernel(a, b) for a in x for b in y])


def moment_distance(x, y):
    (mean_x, C_x), (mean_y, C_y) = ((mean(list(rows)), torch.cov(rows.T)) for rows in (x, y))
    return ((mean_x - mean_y) ** 2).mean() + ((C_x - C_y) ** 2).mean()


def matched(distance):
    def step(network, optimizer, domains, t, *, mmd_gamma):
        features = [network.featurizer(x) for x, _ in domains]
        loss = mean([F.cross_entropy(network.classifier(f), y) for f, (_, y) in zip(features, domains, strict=True)])
        pairs = [(i, j) for i in range(len(domains)) for j in range(i)]
        penalty = mean([distance(features[i], features[j]) for i, j in pairs]) if pairs else torch.zeros(())
        step_along(network, optimizer, loss + mmd_gamma * penalty)
        return {"loss": loss.detach(), "penalty": penalty.detach()}

    return step


def interpolated(values, q):
    """The q-quantile of a list of numbers, between its two neighbours in order."""
    ordered, rank = sorted(values), q * (len(values) - 1)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


def rsc(network, optimizer, domains, t, *, rsc_f_drop_factor=1 / 3, rsc_b_drop_factor=1 / 3):
    x, y = (torch.cat(parts) for parts in zip(*domains, strict=True))
    features = network.featurizer(x)
    mute, drops = torch.zeros(features.shape, dtype=torch.bool), []
    for n, f in enumerate(features):
        f = f.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network.classifier(f)[y[n]], f)
        threshold = interpolated(slope.tolist(), 1 - rsc_f_drop_factor)
        mute[n] = torch.tensor([s >= threshold for s in slope.tolist()])
        with_all, without = (network.classifier(part).softmax(0)[y[n]] for part in (f, f.where(~mute[n], 0.0)))
        drops.append((with_all - without).item())
    threshold = interpolated(drops, 1 - rsc_b_drop_factor)
    for n, drop in enumerate(drops):
        mute[n] &= drop >= threshold
    loss = F.cross_entropy(network.classifier(features.where(~mute, 0.0)), y)
    step_along(network, optimizer, loss)
    return {"loss": loss.detach()}


def fishr(network, optimizer, domains, t, *, lambda_weight, penalty_anneal_iters, ema):
    """Gradients of the rows by autograd, one row after the other."""
    weight = penalty_weight(optimizer, t, lambda_weight, penalty_anneal_iters, 0.0)
    head, variances = list(network.classifier.parameters()), []
    for x, y in domains:
        losses = F.cross_entropy(network(x), y, reduction="none")
        rows = [torch.autograd.grad(L, head, create_graph=True, materialize_grads=True) for L in losses]
        rows = [torch.cat([g.reshape(-1) for g in row]) for row in rows]
        variances.append(mean([(row - mean(rows)) ** 2 for row in rows]))
    old = getattr(optimizer, "m", [torch.zeros_like(v) for v in variances])
    m = [ema * m_k + (1 - ema) * v for m_k, v in zip(old, variances, strict=True)]
    optimizer.m = [m_k.detach() for m_k in m]
    penalty = mean([((m_k - mean(m)) ** 2).mean() for m_k in m]) / (1 - ema) ** 2
    nll = F.cross_entropy(network(torch.cat([x for x, _ in domains])), torch.cat([y for _, y in domains]))
    loss = nll + weight * penalty
    step_along(network, optimizer, loss)
    return {"loss": loss.detach(), "nll": nll.detach(), "penalty": penalty.detach()}


DOMAINBED = {
    "IRM": irm,
    "VREx": vrex,
    "GroupDRO": groupdro,
    "SD": sd,
    "MMD": matched(discrepancy),
    "CORAL": matched(moment_distance),
    "RSC": rsc,
    "Fishr": fishr,
}
