"""The precision of a run is that of its forward passes; weights, logits and gradients stay in float32."""

import pytest
import torch
from algorithm_cases import algorithm, mlp
from torch import nn

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.models.optimizers import adam

BATCH = DomainBatch(
    torch.randn(6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1]), (2, 4)
)


def erm(precision):
    return algorithms["ERM"](Problem(mlp().float(), adam, 2, precision))


def dtypes(algorithm):
    """Of what every linear layer returns in a step."""
    found = set()
    for layer in algorithm.model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda layer, given, out: found.add(out.dtype))
    algorithm.update(BATCH)
    return found


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_layers_compute_in_the_precision_of_the_run(precision, expected):
    assert dtypes(erm(precision)) == {expected}


def test_double_stays_double():
    model = algorithm("ERM", mlp(), 2)
    assert model.forward(BATCH.x.double()).dtype == torch.float64


def test_bf16_is_autocast_to_bfloat16():
    """Equal to the last bit; fp16 and fp32 give other logits."""
    ours, model = erm("bf16").forward(BATCH.x), mlp().float()
    logits = {}
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            logits[dtype] = model(BATCH.x).float()
    assert torch.equal(ours, logits[torch.bfloat16])
    assert not torch.equal(ours, logits[torch.float16])
    assert not torch.equal(ours, model(BATCH.x))


def test_weights_logits_and_gradients_are_float32():
    trained = erm("bf16")
    loss, gradient = trained.gradient(BATCH)
    assert {t.dtype for t in (loss, *gradient, *trained.params, trained.forward(BATCH.x))} == {torch.float32}
