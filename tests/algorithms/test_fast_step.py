"""The fast step is the literal one: equality with `scripts/plain_loops.py`, which follows Algorithm 1 line by line."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from algorithm_cases import CLASSES, IMAGE, algorithm, batches, mlp, one_thread
from open_clip.transformer import VisionTransformer
from properties import assert_close
from torch import nn
from torch.nn.utils import parameters_to_vector

from domainbed_sage.geometry.perturb import spectral_ascent
from domainbed_sage.geometry.vectors import agreement
from domainbed_sage.models import Model
from domainbed_sage.models.optimizers import sgd

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import plain_loops

HPARAMS = {"ERM": {}, "SAM": {"rho": 0.05}, "SAGE": {"rho": 0.02, "gamma": 0.05}}
PLAIN = {"ERM": "plain ERM", "SAM": "plain SAM", "SAGE": "literal SAGE"}
SIZES = [(4,), (3, 3), (2, 1, 3), (2, 2, 2), (2, 2, 2, 2), (1, 2, 3, 2, 1)]


def frozen_cnn():
    """Convolutions, one depthwise, with BatchNorm on stored statistics."""
    torch.manual_seed(0)
    featurizer = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 2, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    model = Model(featurizer, nn.Linear(8, CLASSES), IMAGE, freeze_bn=True).double()
    for norm in model.batch_norms():
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model


def vit():
    """open_clip's vision transformer, small: fused QKV, class and position embeddings, a projection."""
    torch.manual_seed(0)
    tower = VisionTransformer(8, patch_size=4, width=24, layers=2, heads=3, mlp_ratio=4.0, output_dim=6)
    return Model(tower, nn.Linear(6, CLASSES), IMAGE).double()


NETWORKS = {mlp: (6,), frozen_cnn: (3, 6, 6), vit: (3, 8, 8)}
every_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
every_size = pytest.mark.parametrize("sizes", SIZES, ids=str)


def flat(vector):
    return torch.cat([t.reshape(-1) for t in vector])


@one_thread()
@every_network
@every_size
def test_moments_of_the_domain_gradients(network, sizes):
    """Gram matrix, agreement S and weighted mean are those of K backward passes over one joint graph."""
    (batch,) = batches(sizes, 1, NETWORKS[network])
    grads = plain_loops.domain_gradients(network(), batch)
    matrix = torch.stack([flat(g) for g in grads])
    losses, inner_products, g = algorithm("ERM", network()).domain_moments(batch)
    scale = matrix.norm()
    assert_close(inner_products, matrix @ matrix.T, 1e-12 * float(scale) ** 2)
    assert_close(agreement(inner_products), plain_loops.agreement(grads), 1e-12)
    assert_close(flat(g), torch.tensor(sizes).double() @ matrix / sum(sizes), 1e-12 * float(scale))
    assert len(losses) == len(sizes)


@one_thread()
@every_network
def test_perturbation(network):
    """Batched, on Gram matrices, in place: still ρ ‖W‖_F times Newton-Schulz of each gradient by itself."""
    made, (batch,) = algorithm("ERM", network()), batches((2, 1, 3), 1, NETWORKS[network])
    _, g = made.gradient(batch)
    for W, G, ours in zip(made.params, g, spectral_ascent(made.params, g, 0.02), strict=True):
        matrix = W.ndim >= 2
        literal = W.norm() * plain_loops.newton_schulz(G.flatten(1)).reshape(W.shape) if matrix else G / G.norm()
        assert_close(ours, 0.02 * literal.detach(), 1e-12)


@one_thread()
@every_network
@every_size
@pytest.mark.parametrize("name", HPARAMS)
def test_weights_after_ten_steps(name, network, sizes):
    """With momentum: Adam would blow up the rounding of gradients that are 0, as those of a ViT's key biases are."""
    model, other = network(), network()
    made = algorithm(name, model, make_optimizer=partial(sgd, lr=0.02), **HPARAMS[name])
    optimizer = torch.optim.SGD(other.parameters(), lr=0.02, momentum=0.9)
    literal = partial(plain_loops.STEPS[PLAIN[name]], other, optimizer, **HPARAMS[name])
    for step, batch in enumerate(batches(sizes, 10, NETWORKS[network])):
        torch.manual_seed(step)
        made.update(batch)
        torch.manual_seed(step)
        literal(batch)
    theirs = parameters_to_vector(other.parameters())
    assert_close(parameters_to_vector(model.parameters()).detach(), theirs.detach(), 1e-9)
    assert (theirs - parameters_to_vector(network().parameters())).abs().max() > 0.02
