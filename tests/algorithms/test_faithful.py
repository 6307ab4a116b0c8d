"""In bf16x3 a gradient, and what SAGE's perturbation changes in it, are fp32's: on transformers of both libraries."""

import pytest
import timm
import torch
from algorithm_cases import one_thread
from open_clip.transformer import VisionTransformer
from torch import nn

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.geometry.perturb import Survival, perturbed, spectral_ascent
from domainbed_sage.models import ImageSpec, Model
from domainbed_sage.models.optimizers import adam

RHO = 1e-6  # the paper's


def clip():
    """The image tower of CLIP, with fewer and narrower blocks."""
    return VisionTransformer(32, 16, width=128, layers=3, heads=2, mlp_ratio=4.0, output_dim=64), 64


def vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, num_classes=0), 192


def gradient(model, batch, precision):
    return algorithms["ERM"](Problem(model, adam, 3, precision)).gradient(batch)[1]


@one_thread()
@pytest.mark.parametrize("build", [clip, vit])
def test_bf16x3_is_faithful_at_the_papers_radius_and_bf16_is_not(build):
    torch.manual_seed(0)
    tower, width = build()
    model = Model(tower, nn.Linear(width, 7), ImageSpec(32, (0, 0, 0), (1, 1, 1)))
    batch = DomainBatch(torch.rand(6, 3, 32, 32) * 2 - 1, torch.arange(6), (2, 2, 2))
    params = tuple(model.parameters())
    before = {p: gradient(model, batch, p) for p in ("fp32", "bf16x3", "bf16")}
    with perturbed(params, spectral_ascent(params, before["fp32"], RHO)):
        after = {p: gradient(model, batch, p) for p in before}
    d = {p: tuple(a - b for a, b in zip(after[p], before[p], strict=True)) for p in before}
    off = tuple(a - b for a, b in zip(before["bf16x3"], before["fp32"], strict=True))
    assert Survival.of(off, before["fp32"]).size < 3e-5
    faithful = Survival.of(d["bf16x3"], d["fp32"])
    assert faithful.cosine > 0.999
    assert abs(faithful.size - 1) < 0.01
    assert Survival.of(d["bf16"], d["fp32"]).cosine < 0.9
