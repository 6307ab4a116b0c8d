"""Which products of a network are computed in the precision of a run, and that nothing else of it changes."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from properties import assert_close, assert_same_bits
from torch import nn

from domainbed_sage.geometry import products
from domainbed_sage.models.arithmetic import products_in, tf32_allowed

CPU = torch.device("cpu")


@pytest.fixture
def counted(monkeypatch):
    """The shapes of the products that were computed from parts."""
    found, real = [], products.multiply

    def multiply(a, b, precision):
        found.append((*a.shape, b.shape[-1]))
        return real(a, b, precision)

    monkeypatch.setattr(products, "multiply", multiply)
    return found


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("layer", "x", "shape"),
    [
        (nn.Linear(6, 4), images(2, 5, 6), (10, 6, 4)),
        (nn.Linear(6, 4, bias=False), images(6), (1, 6, 4)),
        (nn.Conv2d(3, 8, 4, 4), images(2, 3, 8, 12), (12, 48, 8)),
        (nn.Conv2d(3, 8, 4, 4), images(2, 3, 11, 15), (12, 48, 8)),
        (nn.Conv2d(3, 8, (2, 3), (2, 3), "valid", bias=False), images(2, 3, 4, 6), (8, 18, 8)),
        (nn.Conv2d(3, 8, 1), images(2, 3, 4, 5), (40, 3, 8)),
        (nn.Conv2d(3, 8, 1, stride=2), images(2, 3, 4, 5), (12, 3, 8)),
    ],
    ids=str,
)
def test_these_layers_are_products_of_parts(layer, x, shape, counted):
    expected = layer(x)
    with products_in("bf16x6", CPU):
        ours = layer(x)
    assert counted == [shape]
    assert_close(ours, expected, 1e-5)
    gradient = torch.autograd.grad(ours.square().sum(), layer.weight)[0]
    assert_close(gradient, torch.autograd.grad(expected.square().sum(), layer.weight)[0], 1e-4)
    assert len(counted) == 2
    assert gradient.stride() == layer.weight.stride()


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), images(2, 3, 6, 6)),
        (nn.Conv2d(4, 4, 3, groups=4), images(2, 4, 6, 6)),
        (nn.Conv2d(4, 4, 1, groups=2), images(2, 4, 6, 6)),
        (nn.Conv2d(3, 4, 1, padding=1), images(2, 3, 6, 6)),
        (nn.Conv2d(3, 4, 2, 2, padding="valid", dilation=2), images(2, 3, 6, 6)),
        (nn.Conv2d(3, 4, 3, padding="same"), images(2, 3, 6, 6)),
        (nn.Conv2d(3, 4, 1), images(3, 6, 6)),
        (nn.LayerNorm(6), images(2, 6)),
        (nn.Linear(6, 4).double(), images(2, 6).double()),
    ],
    ids=str,
)
def test_these_stay_as_they_are(layer, x, counted):
    expected = layer(x)
    with products_in("bf16x3", CPU):
        assert_same_bits(layer(x), expected)
    assert counted == []


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", ["plain", "mask", "weights", "cross"])
def test_attention_projects_in_parts_and_is_pytorchs_otherwise(case, training, counted):
    """Also in evaluation, where PyTorch has a fused way of its own."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).train(training)
    x, other = images(3, 5, 8), images(3, 5, 8, seed=1)
    y = other if case == "cross" else x
    mask = torch.ones(5, 5).triu(1).bool() if case == "mask" else None
    with torch.set_grad_enabled(training):
        expected = attention(x, y, y, need_weights=case == "weights", attn_mask=mask)
        with products_in("bf16x6", CPU):
            ours = attention(x, y, y, need_weights=case == "weights", attn_mask=mask)
    inward = [(15, 8, 8), (15, 8, 16)] if case == "cross" else [(15, 8, 24)]
    assert counted == [*inward, (15, 8, 8)]
    assert_close(ours[0], expected[0], 1e-5)
    if case == "weights":
        assert_close(ours[1], expected[1], 1e-5)


def test_every_product_of_clips_block(counted):
    """Two projections of attention, and two layers, each with the two products of its gradients."""
    block, x = ResidualAttentionBlock(16, 2), images(2, 5, 16)
    with products_in("bf16x3", CPU):
        y = block(x.requires_grad_())
    assert counted == [(10, 16, 48), (10, 16, 16), (10, 16, 64), (10, 64, 16)]
    y.square().sum().backward()
    assert len(counted) == 3 * 4


def test_every_product_of_timms_vit(counted):
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=7)
    with products_in("bf16x3", CPU):
        vit(images(1, 3, 32, 32))
    tokens = [(5, 192, 576), (5, 192, 192), (5, 192, 768), (5, 768, 192)]
    assert counted == [(4, 768, 192), *tokens, *tokens, (1, 192, 7)]


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
def test_other_precisions_are_not_touched(precision, counted):
    layer, x = nn.Linear(6, 4), images(2, 6)
    with products_in(precision, CPU):
        assert_same_bits(layer(x), F.linear(x, layer.weight, layer.bias))
    assert counted == []


def test_tf32_is_emulated_where_there_is_none(counted):
    layer, x = nn.Linear(6, 4, bias=False), images(2, 6)
    with products_in("tf32", torch.device("cuda")):
        assert_same_bits(layer(x), F.linear(x, layer.weight))
    with products_in("tf32", CPU):
        seen = layer(x)
    assert_same_bits(seen, products.rounded(x, "tf32") @ products.rounded(layer.weight, "tf32").mT)
    assert len(counted) == 1


def test_state_and_names_are_those_of_the_network():
    block = ResidualAttentionBlock(16, 2)
    before = copy.deepcopy(block.state_dict())
    with products_in("bf16x3", CPU):
        block(images(2, 5, 16))
    assert list(block.state_dict()) == list(before)
    assert all(torch.equal(t, before[name]) for name, t in block.state_dict().items())


def test_dropout_draws_the_same():
    layers, x = nn.Sequential(nn.Linear(6, 400), nn.Dropout(0.5)), images(2, 6)
    torch.manual_seed(1)
    expected = layers(x)
    torch.manual_seed(1)
    with products_in("bf16x3", CPU):
        assert torch.equal(layers(x) == 0, expected == 0)


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_put_back(allowed):
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [s.allow_tf32 for s in settings]
    with tf32_allowed(allowed):
        assert [s.allow_tf32 for s in settings] == [allowed, allowed]
    assert [s.allow_tf32 for s in settings] == before
