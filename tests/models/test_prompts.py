"""Visual prompts: equality with a loop that puts them in by hand, what is trained, copies, and what has no tokens."""

import copy

import pytest
import torch
from open_clip.transformer import VisionTransformer as ClipTower
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared, resolve
from domainbed_sage.models import ImageSpec, Model, build_model, models
from domainbed_sage.models.prompts import add_prompts

LENGTH, WIDTH, DEPTH = 3, 12, 3


def timm_vit():
    return VisionTransformer(img_size=16, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=3, num_classes=0)


def clip_tower():
    return ClipTower(16, 8, WIDTH, DEPTH, 3, 4.0, output_dim=7)


def prompted(network, depth="deep", seed=0):
    torch.manual_seed(seed)
    tower = network()
    features = 7 if network is clip_tower else WIDTH
    model = Model(nn.Sequential(tower, nn.Identity()), nn.Linear(features, 2), ImageSpec(16, (0, 0, 0), (1, 1, 1)))
    return add_prompts(model, "a tower", LENGTH, depth).double().eval(), tower


def by_hand(tower, tokens, x, blocks):
    for i, block in enumerate(blocks):
        if i < len(tokens):
            x = torch.cat([x if i == 0 else x[:, :-LENGTH], tokens[i].expand(len(x), -1, -1)], dim=1)
        x = block.forward(x)  # without hooks
    return x[:, :-LENGTH]


@pytest.mark.parametrize("depth", ["shallow", "deep"])
@pytest.mark.parametrize("network", [timm_vit, clip_tower])
def test_features_equal_a_loop_over_the_blocks(network, depth):
    model, tower = prompted(network, depth)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    tokens = next(p for n, p in model.named_parameters() if n.endswith("tokens"))
    assert tokens.shape == (DEPTH if depth == "deep" else 1, LENGTH, WIDTH)
    if network is timm_vit:
        embedded = tower.norm_pre(tower._pos_embed(tower.patch_embed(x)))
        expected = tower.norm(by_hand(tower, tokens, embedded, tower.blocks))[:, 0]
    else:
        out = by_hand(tower, tokens, tower._embeds(x), tower.transformer.resblocks)
        expected = tower.ln_post(out)[:, 0] @ tower.proj
    torch.testing.assert_close(model.featurizer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("network", [timm_vit, clip_tower])
def test_prompts_and_classifier_are_trained_alone(network):
    model, _ = prompted(network)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"featurizer.prompts.prompts.tokens", "classifier.weight", "classifier.bias"}
    model(torch.randn(2, 3, 16, 16, dtype=torch.float64)).sum().backward()
    tokens = model.get_parameter("featurizer.prompts.prompts.tokens")
    assert (tokens.grad.flatten(1).norm(dim=1) > 0).all()


def test_values_start_as_in_the_paper():
    tokens = prompted(timm_vit)[0].get_parameter("featurizer.prompts.prompts.tokens")
    v = (6 / (3 * 8 * 8 + WIDTH)) ** 0.5
    assert 0.9 * v < tokens.abs().max() <= v
    assert tokens.mean().abs() < 0.2 * v


def test_a_copy_has_prompts_of_its_own():
    model, _ = prompted(timm_vit)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    before, other = model(x), copy.deepcopy(model)
    assert torch.equal(other(x), before)
    with torch.no_grad():
        other.get_parameter("featurizer.prompts.prompts.tokens").zero_()
    assert torch.equal(model(x), before)
    assert not torch.equal(other(x), before)


def test_weights_can_be_stored_and_loaded():
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    one, other = prompted(timm_vit)[0], prompted(timm_vit, seed=5)[0]
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_a_network_without_tokens_is_refused():
    with pytest.raises(UserError, match=r"tf_efficientnet_lite0 has no tokens to put .* vit_base_patch16"):
        build_model("timm_vpt", ["a", "b"], hparams("timm_vpt", backbone="tf_efficientnet_lite0", pretrained=False))
    with pytest.raises(UserError, match="resnet10t has no tokens"):
        build_model("timm_vpt", ["a", "b"], hparams("timm_vpt", backbone="resnet10t", pretrained=False))


def hparams(name, **given):
    return resolve(declared(models[name].build), given, recommended=models[name].recommended)


@pytest.mark.parametrize(("name", "base"), [("clip_vit_b16_vpt", "clip_vit_b16"), ("timm_vpt", "timm")])
def test_hyperparameters_are_those_of_the_model_and_two_more(name, base):
    ours, theirs = declared(models[name].build), declared(models[base].build)
    assert list(ours) == ["prompt_length", "prompt_depth", *theirs]
    assert models[name].require is models[base].require
    assert models[name].without_weights == models[base].without_weights
    assert hparams(name)["prompt_length"] == 10
    with pytest.raises(UserError, match="prompt_length"):
        hparams(name, prompt_length=0)


def test_a_registered_model_gets_its_hyperparameters():
    given = {"backbone": "vit_tiny_patch16_224", "pretrained": False, "image_size": 32}
    model = build_model("timm_vpt", ["a", "b"], hparams("timm_vpt", prompt_length=2, prompt_depth="shallow", **given))
    assert model.get_parameter("featurizer.prompts.prompts.tokens").shape == (1, 2, 192)
    assert (model.image.size, model.classifier.weight.shape) == (32, (2, 192))
