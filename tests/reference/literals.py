"""One step of each baseline, written naively from the papers' formulas on one flat weight vector θ.

Every function has the arguments (network, optimizer, domains, t, hyperparameters) of `sage_literal.sage` and returns
what the method reports.
"""

import torch
import torch.nn.functional as F
from reference.literals_domainbed import DOMAINBED
from reference.sage_literal import (
    descend,
    domain_gradients,
    flat,
    pair_cosines,
    pieces,
    sage,
    sample_weighted,
    trainable,
    write,
)


def loss_and_gradient(network, domains):
    """Cross-entropy of all rows together and its flat gradient, by `backward`."""
    for p in trainable(network):
        p.grad = torch.zeros_like(p)
    loss = F.cross_entropy(network(torch.cat([x for x, _ in domains])), torch.cat([y for _, y in domains]))
    loss.backward()
    return loss.detach(), flat([p.grad for p in trainable(network)])


def length(vector):
    return vector.pow(2).sum().sqrt()


def at(network, theta, domains):
    """Loss and gradient at other weights; the network keeps its own."""
    own = flat(trainable(network))
    write(network, theta)
    found = loss_and_gradient(network, domains)
    write(network, own)
    return found


def erm(network, optimizer, domains, t):
    loss, g = loss_and_gradient(network, domains)
    descend(network, optimizer, g)
    return {"loss": loss}


def sam(network, optimizer, domains, t, *, rho):
    loss, g = loss_and_gradient(network, domains)
    epsilon = rho * g / (length(g) + 1e-12)
    loss_perturbed, g_perturbed = at(network, flat(trainable(network)) + epsilon, domains)
    descend(network, optimizer, g_perturbed)
    return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": length(epsilon)}


def sagm(network, optimizer, domains, t, *, rho, alpha, halve=True):
    loss, g = loss_and_gradient(network, domains)
    epsilon = (rho / (length(g) + 1e-12) - alpha) * g
    loss_perturbed, g_perturbed = at(network, flat(trainable(network)) + epsilon, domains)
    descend(network, optimizer, (g + g_perturbed) / 2 if halve else g + g_perturbed)
    return {"loss": loss, "loss_perturbed": loss_perturbed, "epsilon_norm": length(epsilon)}


def disam(network, optimizer, domains, t, *, rho, lambda_weight, sample_weighted=False):
    """The ascent gradient Σ_i (α_i - (2λ/M) (L_i - mean L)) g_i with α_i = n_i / N, multiplied out by hand.

    With `sample_weighted` every sample enters the variance with the loss of its domain, as in the authors' code.
    """
    losses, g = domain_gradients(network, domains)
    counts = [len(y) for _, y in domains]
    share = [n if sample_weighted else 1 for n in counts]
    mean = sum(s * L for s, L in zip(share, losses, strict=True)) / sum(share)
    ascent, variance = torch.zeros_like(g[0]), 0.0
    for n, s, L, g_i in zip(counts, share, losses, g, strict=True):
        ascent += (n / sum(counts) - 2 * lambda_weight * s / sum(share) * (L - mean)) * g_i
        variance = variance + s / sum(share) * (L - mean) ** 2
    epsilon = rho * ascent / (length(ascent) + 1e-12)
    loss_perturbed, g_perturbed = at(network, flat(trainable(network)) + epsilon, domains)
    descend(network, optimizer, g_perturbed)
    loss = sum(n * L for n, L in zip(counts, losses, strict=True)) / sum(counts)
    return {"loss": loss, "loss_perturbed": loss_perturbed, "loss_variance": variance}


def smallest_cosine_and_loss(network, domains):
    losses, g = domain_gradients(network, domains)
    return min(pair_cosines(g), default=1.0), sample_weighted(losses, domains)


def gga(network, optimizer, domains, t, *, radius, start, end, trials, tolerance, random_walk=False):
    """Search around θ in the steps start … end, then one ordinary step from the best candidate.

    `random_walk` is the released code: the weights walk on from a rejected candidate and go back to θ after an accepted
    one, whose loss becomes the reference.
    """
    accepted = 0
    if start <= t <= end:
        params = trainable(network)
        in_featurizer = {id(p) for p in network.featurizer.parameters()}
        theta = best = flat(params)
        cosine, reference = smallest_cosine_and_loss(network, domains)
        for _ in range(trials):
            from_here = flat(params) if random_walk else theta
            drawn = [
                2 * radius * torch.rand_like(p) - radius if id(p) in in_featurizer else torch.zeros_like(p)
                for p in params
            ]
            write(network, from_here + flat(drawn))
            new_cosine, new_loss = smallest_cosine_and_loss(network, domains)
            if new_loss - reference < tolerance and new_cosine > cosine:
                accepted += 1
                cosine, best = new_cosine, flat(params)
                if random_walk:
                    reference = new_loss
                    write(network, theta)
        write(network, best)
    found = erm(network, optimizer, domains, t)
    return found | ({"accepted": accepted} if start <= t <= end else {})


def gga_l(network, optimizer, domains, t, *, gamma, noise="uniform"):
    losses, g = domain_gradients(network, domains)
    cosines = pair_cosines(g)
    S = sum(cosines) / len(cosines) if cosines else 1.0
    draw = torch.rand_like if noise == "uniform" else torch.randn_like
    params = trainable(network)
    xi = [draw(p) for p in params]
    step = [h + gamma * (1 - S) * x for h, x in zip(pieces(sample_weighted(g, domains), params), xi, strict=True)]
    descend(network, optimizer, flat(step))
    return {"loss": sample_weighted(losses, domains), "agreement": S, "beta": gamma * (1 - S)}


LITERALS = {
    "ERM": erm,
    "SAM": sam,
    "SAGM": sagm,
    "GGA": gga,
    "GGA_L": gga_l,
    "DISAM": disam,
    "SAGE": sage,
    **DOMAINBED,
}
