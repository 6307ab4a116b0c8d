"""CLIP ViT-B/16: equal to `transformers`' CLIP with the same weights; its classifier; what it refuses."""

import gc
import weakref
from types import SimpleNamespace

import open_clip
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from clip_cases import TINY, random_state, transformers_clip, write_archive
from properties import assert_close

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared
from domainbed_sage.models import clip, models
from domainbed_sage.models.clip import clip_vit_b16

CLASSES = ("cat", "alarm_clock", "Real_World")
PROMPTS = ("a photo of a cat.", "a photo of a alarm clock.", "a photo of a Real World.")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Random full-size weights in a file, and what `transformers` computes with them."""
    path = tmp_path_factory.mktemp("clip") / "random.safetensors"
    state = random_state(open_clip.get_model_config("ViT-B-16"))
    safetensors.torch.save_file({name: value.half() for name, value in state.items()}, path)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = transformers_clip(state)
        tokens = open_clip.get_tokenizer("ViT-B-16")(list(PROMPTS))
        image_features = reference.visual_projection(reference.vision_model(images).pooler_output)
        text_features = reference.text_projection(reference.text_model(tokens).pooler_output)
        out = reference(input_ids=tokens, pixel_values=images)
    return SimpleNamespace(
        path=str(path),
        images=images,
        image_features=image_features,
        text_features=text_features,
        text_embeds=out.text_embeds,
        logits=out.logits_per_image,
        scale=float(state["logit_scale"].exp()),
    )


@pytest.fixture(scope="module")
def built(full):
    """The model that a run would train, from that file."""
    return clip_vit_b16(CLASSES, weights=full.path, activation="quickgelu", logit_scale=full.scale)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A CLIP small enough to build in no time takes the place of ViT-B/16; its weights as an OpenAI archive."""
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: {"ViT-B-16": TINY}[name])
    state = random_state(TINY)
    return SimpleNamespace(state=state, path=str(write_archive(state, tmp_path / "tiny.pt")))


def hparams(**given):
    return {name: h.default for name, h in declared(clip_vit_b16).items()} | given


# Equal to an independent implementation


def test_image_features_equal_those_of_transformers(full, built):
    with torch.no_grad():
        projected, features = built.featurizer[0](full.images), built.featurizer(full.images)
    assert projected.shape == (2, 512)
    assert (projected - full.image_features).abs().max() < TOLERANCE
    assert (features - F.normalize(full.image_features, dim=-1)).abs().max() < TOLERANCE
    assert (features[0] - features[1]).abs().max() > 100 * TOLERANCE


def test_text_features_equal_those_of_transformers(full):
    towers = clip.load_clip(full.path, "quickgelu")
    with torch.no_grad():
        projected = towers.encode_text(open_clip.get_tokenizer("ViT-B-16")(list(PROMPTS)))
    assert (projected - full.text_features).abs().max() < TOLERANCE


def test_zero_shot_logits_equal_those_of_transformers(full, built):
    with torch.no_grad():
        logits = built(full.images)
    assert logits.shape == (2, 3)
    cosines, expected = (
        logits / full.scale,
        full.logits / full.scale,
    )  # logits are cosines times 100: so is their rounding
    assert (cosines - expected).abs().max() < TOLERANCE / 10
    assert expected.std() > 100 * TOLERANCE


def test_rows_of_the_classifier_are_the_text_features_of_the_prompts(full, built):
    assert (built.classifier.weight - full.text_embeds).abs().max() < TOLERANCE
    assert torch.allclose(built.classifier.weight.norm(dim=1), torch.ones(3), atol=1e-6)


def test_gelu_in_place_of_quickgelu_would_be_seen(full):
    other = clip.load_clip(full.path, "gelu")
    with torch.no_grad():
        assert (other.encode_image(full.images) - full.image_features).abs().max() > 1e-3
        texts = other.encode_text(open_clip.get_tokenizer("ViT-B-16")(list(PROMPTS)))
    assert (texts - full.text_features).abs().max() > 1e-3


def test_inventory_of_the_image_tower(built):
    tensors = dict(built.featurizer.named_parameters())
    assert len(tensors) == 152
    assert sum(p.numel() for p in tensors.values()) == 86_192_640
    assert sum(p.ndim >= 2 for p in tensors.values()) == 51
    fused = [p.shape for name, p in tensors.items() if name.endswith("attn.in_proj_weight")]
    assert fused == [(2304, 768)] * 12
    assert not list(built.featurizer.buffers())


def test_tokens_are_those_of_openai(monkeypatch):
    asked = []

    class Recorder:
        def encode_text(self, tokens, normalize):
            assert normalize
            asked.append(tokens)
            return torch.zeros(len(tokens), 512)

    monkeypatch.setattr(clip, "PROMPTS_AT_ONCE", 2)
    features = clip.text_features(Recorder(), ["cat", "Cat", "a_cat"], "a photo of a {}.")
    assert [len(tokens) for tokens in asked] == [2, 1]
    assert features.shape == (3, 512)
    cat = [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert asked[0][:, :9].tolist() == [[*cat, 0]] * 2
    assert asked[1][0, :9].tolist() == [*cat[:5], 320, *cat[5:]]


# The classifier


def test_logits_are_scaled_products_of_normalised_features(tiny):
    images = torch.randn(2, 3, 32, 32)
    model = clip_vit_b16(CLASSES, weights=tiny.path, logit_scale=7.0)
    features = F.normalize(model.featurizer[0](images), dim=-1)
    assert torch.allclose(model(images), 7 * features @ model.classifier.weight.T, atol=1e-6)
    assert model.classifier.bias is None
    with torch.no_grad():
        model.classifier.weight.mul_(2)
    assert torch.allclose(model(images), 7 * features @ model.classifier.weight.T, atol=1e-6)  # not renormalised


def test_features_can_stay_as_long_as_they_are(tiny):
    images = torch.randn(2, 3, 32, 32)
    model = clip_vit_b16(CLASSES, weights=tiny.path, normalize_features=False)
    assert torch.equal(model.featurizer(images), model.featurizer[0](images))
    assert (model.featurizer(images).norm(dim=1) - 1).abs().min() > 0.01


def test_linear_classifier_is_random_with_a_bias(tiny):
    torch.manual_seed(0)
    first = clip_vit_b16(CLASSES, weights=tiny.path, head="linear", normalize_features=False, logit_scale=1.0)
    second = clip_vit_b16(CLASSES, weights=tiny.path, head="linear")
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    assert first.classifier.bias.shape == (3,)
    images = torch.randn(2, 3, 32, 32)
    expected = F.linear(first.featurizer[0](images), first.classifier.weight, first.classifier.bias)
    assert torch.equal(first(images), expected)
    towers = zip(first.featurizer.parameters(), second.featurizer.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in towers)


@pytest.mark.parametrize("scale", [0.5, 7.0])
def test_the_scale_is_of_the_features_and_not_of_the_bias(tiny, scale):
    model = clip_vit_b16(CLASSES, weights=tiny.path, head="linear", logit_scale=scale)
    images = torch.randn(2, 3, 32, 32)
    features = model.featurizer(images)
    expected = scale * features @ model.classifier.weight.T + model.classifier.bias
    assert_close(model(images), expected, 1e-5)


@pytest.mark.parametrize("head", ["zero_shot", "linear"])
def test_classifier_is_trained_or_not(tiny, head):
    for train_head in (True, False):
        model = clip_vit_b16(CLASSES, weights=tiny.path, head=head, train_head=train_head)
        assert {p.requires_grad for p in model.classifier.parameters()} == {train_head}
        assert all(p.requires_grad for p in model.featurizer.parameters())


def test_every_tensor_of_the_tower_gets_a_gradient(tiny):
    model = clip_vit_b16(CLASSES, weights=tiny.path)
    F.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_template_is_a_choice(tiny):
    default, other = (clip_vit_b16(CLASSES, weights=tiny.path, **t) for t in ({}, {"template": "a sketch of a {}."}))
    assert (default.classifier.weight - other.classifier.weight).abs().max() > 1e-3
    towers = clip.load_clip(tiny.path, "auto")
    expected = towers.encode_text(open_clip.get_tokenizer("ViT-B-16")(["a sketch of a cat."]), normalize=True)
    assert torch.allclose(other.classifier.weight[:1], expected, atol=1e-6)


def test_text_tower_does_not_stay_in_memory(tiny, monkeypatch):
    watched = []
    build = clip.build_clip

    def watching(quick_gelu):
        towers = build(quick_gelu)
        watched.extend(weakref.ref(part) for part in (towers, towers.transformer, towers.token_embedding.weight))
        watched.append(weakref.ref(towers.visual))
        return towers

    monkeypatch.setattr(clip, "build_clip", watching)
    monkeypatch.setattr(clip, "expected_tensors", lambda: {name: value.shape for name, value in tiny.state.items()})
    model = clip_vit_b16(CLASSES, weights=tiny.path)
    gc.collect()
    assert [part() is not None for part in watched] == [False, False, False, True]
    assert watched[-1]() is model.featurizer[0]


def test_images_are_normalised_as_clips_or_as_imagenets(tiny):
    ours, imagenet = (clip_vit_b16(CLASSES, weights=tiny.path, normalization=n).image for n in ("clip", "imagenet"))
    assert ours.size == imagenet.size == 224
    assert (ours.mean[0], ours.std[0]) == (0.48145466, 0.26862954)
    assert (imagenet.mean[0], imagenet.std[0]) == (0.485, 0.229)


# The weights


def test_random_weights_need_no_file(tiny):
    torch.manual_seed(1)
    first = clip_vit_b16(CLASSES, weights="none")
    torch.manual_seed(1)
    second = clip_vit_b16(CLASSES, weights="none")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert models["clip_vit_b16"].require(hparams(weights="none")) == {
        "name": "none",
        "sha256": None,
        "activation": "quickgelu",
    }


def test_activation_follows_the_weights(tiny, tmp_path):
    assert clip.resolve(tiny.path, "auto")[1] == "quickgelu"  # OpenAI's archive
    assert clip.resolve("none", "gelu") == (None, "gelu")
    towers = clip.load_clip(tiny.path, "auto")
    assert isinstance(towers.visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    unknown = tmp_path / "unknown.safetensors"
    safetensors.torch.save_file(tiny.state, unknown)
    towers = clip.load_clip(str(unknown), "gelu")
    assert isinstance(towers.transformer.resblocks[0].mlp.gelu, torch.nn.GELU)


def test_a_wrong_activation_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match=r"trained with quickgelu. Found activation 'gelu'"):
        clip_vit_b16(CLASSES, weights=tiny.path, activation="gelu")
    unknown = tmp_path / "unknown.safetensors"
    safetensors.torch.save_file(tiny.state, unknown)
    with pytest.raises(UserError, match=r'not known with which activation .*\{"activation": "quickgelu"\}'):
        models["clip_vit_b16"].require(hparams(weights=str(unknown)))


def test_other_tensors_are_refused_and_listed(tiny, tmp_path):
    changed = dict(tiny.state, **{"visual.proj": torch.zeros(64, 8), "visual.extra": torch.zeros(1)})
    del changed["ln_final.bias"]
    path = tmp_path / "changed.safetensors"
    safetensors.torch.save_file(changed, path)
    with pytest.raises(UserError) as caught:
        clip_vit_b16(CLASSES, weights=str(path), activation="quickgelu")
    assert "3 mistakes in" in str(caught.value)
    assert "ln_final.bias (64) is missing." in str(caught.value)
    assert "visual.proj should be 64×16. Found 64×8." in str(caught.value)
    assert "visual.extra is not part of the model." in str(caught.value)


def test_template_needs_a_place_for_the_class(tiny):
    for template in ("a photo.", "{} or {}"):
        with pytest.raises(UserError, match=r"should hold one \{\}"):
            clip_vit_b16(CLASSES, weights=tiny.path, template=template)
        with pytest.raises(UserError, match=r"should hold one \{\}"):
            models["clip_vit_b16"].require(hparams(weights=tiny.path, template=template))


def test_defaults_are_those_of_the_protocol():
    found = {name: h.default for name, h in declared(clip_vit_b16).items()}
    expected = {
        "weights": "openai",
        "activation": "auto",
        "head": "zero_shot",
        "train_head": True,
        "template": "a photo of a {}.",
        "logit_scale": 100.0,
        "normalize_features": True,
        "normalization": "clip",
    }
    assert {name: found[name] for name in expected} == expected
    assert models["clip_vit_b16"].recommended == {"lr": 1e-6, "batch_size": 12}
