"""SAGE's Algorithm 1, line by line: slow, on one flat weight vector θ, with a loop wherever the paper has an index.

The numbers in the comments are the lines of Algorithm 1. The network is any module; OPT is any torch optimiser of its
trainable parameters. `domains` is the list of the K mini-batches (x_k, y_k).
"""

import math

import torch
import torch.nn.functional as F

QUINTIC = (3.4445, -4.7750, 2.0315)


def trainable(network):
    return [p for p in network.parameters() if p.requires_grad]


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def pieces(vector, tensors):
    """Cut a flat vector into the shapes of `tensors`."""
    found, start = [], 0
    for t in tensors:
        found.append(vector[start : start + t.numel()].reshape(t.shape))
        start += t.numel()
    return found


def write(network, theta):
    for p, piece in zip(trainable(network), pieces(theta, trainable(network)), strict=True):
        p.data = piece.clone()


def descend(network, optimizer, gradient):
    for p, piece in zip(trainable(network), pieces(gradient, trainable(network)), strict=True):
        p.grad = piece.clone()
    optimizer.step()
    optimizer.zero_grad()


def cosine(u, v):
    """u·v / (‖u‖ ‖v‖), each norm at least 1e-8."""
    product, uu, vv = 0.0, 0.0, 0.0
    for a, b in zip(u.tolist(), v.tolist(), strict=True):
        product += a * b
        uu += a * a
        vv += b * b
    return product / (max(math.sqrt(uu), 1e-8) * max(math.sqrt(vv), 1e-8))


def pair_cosines(gradients):
    K = len(gradients)
    return [cosine(gradients[i], gradients[j]) for i in range(K) for j in range(i + 1, K)]


def domain_gradients(network, domains):
    """Losses and flat gradients of the domains from one graph over all rows (lines 4 to 8)."""
    logits = network(torch.cat([x for x, _ in domains]))
    losses, gradients, start = [], [], 0
    for _, y in domains:
        losses.append(F.cross_entropy(logits[start : start + len(y)], y))
        start += len(y)
    for loss in losses:
        grads = torch.autograd.grad(loss, trainable(network), retain_graph=True, materialize_grads=True)
        gradients.append(flat(grads))
    return [loss.detach() for loss in losses], gradients


def sample_weighted(values, domains):
    """Σ_k w_k v_k with w_k = n_k / N."""
    N = sum(len(y) for _, y in domains)
    total = 0.0
    for v, (_, y) in zip(values, domains, strict=True):
        total = total + (len(y) / N) * v
    return total


def orthogonalized(G, ns, T):
    """The iterations in the orientation of G itself, without transposing."""
    if ns in ("svd", "svd_rank"):
        U, sigma, Vh = torch.linalg.svd(G, full_matrices=False)
        Q = torch.zeros_like(G)
        for i in range(len(sigma)):
            if ns == "svd" or sigma[i] > max(G.shape) * torch.finfo(G.dtype).eps * sigma[0]:
                Q += torch.outer(U[:, i], Vh[i])
        return Q
    X = G / (G.pow(2).sum().sqrt() + 1e-7)
    for _ in range(T):
        if ns == "quintic":
            a, b, c = QUINTIC
            X = a * X + b * (X @ X.T @ X) + c * (X @ X.T @ X @ X.T @ X)
        else:  # Eq. 7
            X = 0.5 * X @ (3 * torch.eye(X.shape[1], dtype=X.dtype) - X.T @ X)
    return X


def spectral_epsilon(W, G, rho, ns, T, orthogonalize=True, scale_by_weight=True):
    """ε of one parameter (lines 15 to 20)."""
    if G.ndim < 2:
        length = G.pow(2).sum().sqrt()
        return rho * G / length if length > 1e-12 else torch.zeros_like(G)
    matrix = G.reshape(G.shape[0], -1)
    Q = orthogonalized(matrix, ns, T) if orthogonalize else matrix / matrix.pow(2).sum().sqrt()
    size = W.pow(2).sum().sqrt() if scale_by_weight else 1.0
    return (rho * size * Q).reshape(W.shape)


def sage(network, optimizer, domains, t, *, rho, gamma, ns="quintic", ns_steps=5, noise=True, **ablations):
    """One iteration. Returns the loss at θ and what the method reports beside it."""
    del t
    params = trainable(network)
    theta = flat(params)
    losses, g = domain_gradients(network, domains)  # 4-8
    g_bar = sample_weighted(g, domains)  # 9
    cosines = pair_cosines(g)
    S = sum(cosines) / len(cosines) if cosines else 1.0  # 11
    beta = gamma * (1 - S) if noise else 0.0  # 12
    epsilon = flat(
        [
            spectral_epsilon(W.detach(), G, rho, ns, ns_steps, **ablations)
            for W, G in zip(params, pieces(g_bar, params), strict=True)
        ]
    )  # 14-21
    write(network, theta + epsilon)  # 23
    loss_perturbed = F.cross_entropy(network(torch.cat([x for x, _ in domains])), torch.cat([y for _, y in domains]))
    g_perturbed = flat(torch.autograd.grad(loss_perturbed, params, materialize_grads=True))  # 25-26
    write(network, flat(params) - epsilon)  # 28
    xi = flat([torch.randn_like(p) for p in params])
    descend(network, optimizer, g_perturbed + beta * xi)  # 29-31
    return {
        "loss": sample_weighted(losses, domains),
        "loss_perturbed": loss_perturbed.detach(),
        "agreement": S,
        "beta": beta,
        "epsilon_norm": epsilon.pow(2).sum().sqrt(),
    }
