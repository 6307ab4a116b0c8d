"""SAGE on EmojiStyles ends in bf16x3 where it ends in fp32: within the spread of three trials."""

import numpy as np
import torch
import torch.nn.functional as F
from algorithm_cases import one_thread
from torch import nn

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.data.specs import datasets
from domainbed_sage.models import ImageSpec, Model
from domainbed_sage.models.optimizers import adam

STEPS, ROWS, SIDE, HELD_OUT = 120, 8, 32, 1


def environments():
    """Images [N, 3, 32, 32] and labels of each style."""
    for env in datasets["EmojiStyles"].load(None).environments:
        images = [F.interpolate(env.image(i)[None].float(), (SIDE, SIDE), mode="area") for i in range(len(env))]
        yield torch.cat(images) / 127.5 - 1, torch.tensor(env.labels)


def network(seed):
    """All of whose products are in parts in bf16x3."""
    torch.manual_seed(seed)
    patches = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.GELU(), nn.Flatten(), nn.Linear(256, 64), nn.GELU())
    return Model(patches, nn.Linear(64, 10), ImageSpec(SIDE, (0, 0, 0), (1, 1, 1)))


def ended(precision, trial, styles):
    """Loss over the source styles, and accuracy in the held-out one, after the last step."""
    model = network(trial)
    dtype = "bf16x3" if precision == "bf16x3" else "full"
    problem = Problem(model, lambda params: adam(params, lr=3e-3), 3, precision)
    sage = algorithms["SAGE"](problem, rho=1e-4, gamma=1e-4, ns_dtype=dtype)
    sources = [s for i, s in enumerate(styles) if i != HELD_OUT]
    generator = torch.Generator().manual_seed(trial)
    for step in range(STEPS):
        chosen = [torch.randint(len(y), (ROWS,), generator=generator) for _, y in sources]
        x, y = (torch.cat([s[k][i] for s, i in zip(sources, chosen, strict=True)]) for k in (0, 1))
        sage.step, sage.batch = step, DomainBatch(x, y, (ROWS,) * 3)
        torch.manual_seed(1000 * trial + step)
        sage.update(sage.batch)
    with torch.no_grad():
        loss = torch.stack([sage.loss(x, y) for x, y in sources]).mean()
        x, y = styles[HELD_OUT]
        return float(loss), float((sage.forward(x).argmax(1) == y).double().mean()), sage.survival


@one_thread()
def test_bf16x3_ends_within_the_spread_of_fp32():
    styles = list(environments())
    exact = [ended("fp32", trial, styles)[:2] for trial in range(3)]
    parts = [ended("bf16x3", trial, styles) for trial in range(3)]
    print(exact, parts)  # shown by `pytest -s`
    assert all(survival.cosine > 0.999 for *_, survival in parts)
    for k in (0, 1):
        spread = np.ptp([e[k] for e in exact])
        assert spread > 0
        assert all(abs(p[k] - e[k]) < spread for e, p in zip(exact, parts, strict=True))
    assert np.mean([e[1] for e in exact]) > 0.2  # it has learnt something
