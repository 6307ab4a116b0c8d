"""Weight files as they lie around: wrapped, behind prefixes, with another classifier or none, or a trained model's."""

import logging
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import safetensors.torch
import timm
import torch
from clip_cases import TINY, random_state
from helpers import run, small_config
from torch import nn

from domainbed_sage.core.errors import UserError
from domainbed_sage.models import clip, timm_backbone
from domainbed_sage.models.checkpoints import read
from domainbed_sage.models.clip import clip_vit_b16
from domainbed_sage.models.fitting import fitted
from domainbed_sage.models.timm_backbone import timm_model

CLASSES = ("cat", "dog", "fish")
RESNET, VIT = "test_resnet", "test_vit"
STATE = {"conv.weight": torch.randn(2, 3), "conv.bias": torch.randn(2), "fc.weight": torch.randn(5, 2)}
EXPECTED = {name: tensor.shape for name, tensor in STATE.items()}


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(3)
    return timm.create_model(RESNET).state_dict()


@pytest.fixture
def told(caplog):
    """What the log says."""
    caplog.set_level(logging.INFO, "domainbed_sage")
    return lambda: caplog.text


def stored(content, path):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: t.clone() for name, t in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def built(path, backbone=RESNET):
    torch.manual_seed(7)
    return timm_model(CLASSES, backbone=backbone, checkpoint=str(path), image_size=64 if backbone == RESNET else 160)


def assert_holds(model, state):
    """The backbone has these tensors, and the classifier is drawn as without a file."""
    found = model.featurizer[0].state_dict()
    assert set(found) == {name for name in state if not name.startswith(("fc.", "head."))}
    assert [name for name, tensor in found.items() if not torch.equal(tensor, state[name])] == []


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


# The model among them


def test_the_model_itself_is_left_as_it_is(told):
    found = fitted(STATE, EXPECTED, "a.pt", ("fc",))
    assert list(found) == list(STATE)
    assert all(found[name] is STATE[name] for name in STATE)
    assert "a.pt: took 3 tensors, left 0." in told()


def test_a_part_of_something_larger(told):
    state = {"head.x": torch.zeros(1), **prefixed(STATE, "net.0."), "net.1.weight": torch.zeros(1)}
    found = fitted(state, EXPECTED, "a.pt")
    assert list(found) == list(STATE)
    assert "a.pt: took 3 tensors behind 'net.0.', left 2 (head.x, net.1.weight)." in told()


def test_no_such_model_is_left_to_the_caller():
    state = prefixed({"conv.weight": torch.zeros(2, 3)}, "net.")
    assert fitted(state, EXPECTED, "a.pt") is state
    assert fitted({}, EXPECTED, "a.pt") == {}
    assert fitted(state, {}, "a.pt") is state


def test_more_of_the_model_is_left_to_the_caller():
    """A network of 101 layers holds every name of one of 50."""
    state = prefixed(STATE | {"layer4.weight": torch.zeros(1)}, "net.")
    assert "layer4.weight" in fitted(state, EXPECTED, "a.pt", ("fc",))


@pytest.mark.parametrize(
    "head", [{}, {"fc.weight": torch.ones(7, 2)}, {"classifier.weight": torch.ones(5, 2)}, {"fc.bias": torch.ones(5)}]
)
def test_another_classifier_or_none(head, told):
    state = {name: tensor for name, tensor in STATE.items() if not name.startswith("fc.")} | head
    found = fitted(state, EXPECTED, "a.pt", ("fc",))
    assert list(found) == list(STATE)
    assert found["fc.weight"].shape == (5, 2)
    assert found["fc.weight"].count_nonzero() == 0
    assert f"took 2 tensors, left {len(head)}" in told()
    assert all(tensor is state[name] for name, tensor in fitted(state, EXPECTED, "a.pt").items())  # if it is needed


def test_a_classifier_that_is_needed_is_not_left():
    state = STATE | {"classifier.weight": torch.zeros(2), "fc.weight": torch.zeros(3, 3)}
    assert fitted(state, EXPECTED, "a.pt") == state


def test_names_that_only_end_alike():
    state = {f"x{name}": tensor for name, tensor in STATE.items()}
    assert fitted(state, EXPECTED, "a.pt") is state


def test_the_model_and_a_copy_of_it():
    assert list(fitted(STATE | prefixed(STATE, "ema."), EXPECTED, "a.pt")) == list(STATE)


def test_several_models_in_one_file():
    twice = prefixed(STATE, "featurizer.") | prefixed(STATE, "network.0.")
    assert list(fitted(twice, EXPECTED, "a.pt")) == list(STATE)
    twice["network.0.conv.bias"] = torch.zeros(2)
    with pytest.raises(
        UserError, match=r"holds 2 models with different weights, behind the prefixes 'featurizer\.', 'net"
    ):
        fitted(twice, EXPECTED, "a.pt")


def test_batches_were_not_always_counted():
    expected = EXPECTED | {"bn.num_batches_tracked": torch.Size([])}
    assert list(fitted(prefixed(STATE, "net."), expected, "a.pt")) == list(STATE)


# A backbone of timm


def domainbed(state):
    """What DomainBed's ERM leaves: the backbone twice, without its classifier, under its own names."""
    inner = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    head = {"weight": torch.randn(3, 5), "bias": torch.randn(3)}
    names = [("featurizer.network.", inner), ("classifier.", head), ("network.0.network.", inner), ("network.1.", head)]
    model = {name: tensor for prefix, part in names for name, tensor in prefixed(part, prefix).items()}
    return {"args": {"algorithm": "ERM"}, "model_hparams": {"resnet_dropout": np.float64(0.1)}, "model_dict": model}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("a.safetensors", lambda state: state),
        ("a.pt", lambda state: {"model": prefixed(state, "_orig_mod.")}),
        ("a.pth", lambda state: {name: t for name, t in state.items() if not name.startswith("fc.")}),
        ("b.pth", lambda state: state | {"fc.weight": torch.zeros(9, 5), "fc.bias": torch.zeros(9)}),
        ("c.pth", lambda state: {"state_dict": prefixed(state, "encoder.") | {"projector.weight": torch.zeros(2)}}),
        ("model.pkl", domainbed),
        ("old.pth", lambda state: {name: t for name, t in state.items() if "num_batches" not in name}),
    ],
)
def test_a_backbone_in_any_file(tmp_path, resnet, name, wrap):
    counted = name != "old.pth"
    state = {n: t if counted or "num_batches" not in n else torch.zeros_like(t) for n, t in resnet.items()}
    model = built(stored(wrap(resnet), tmp_path / name))
    assert_holds(model, state)
    plain = built(stored(resnet, tmp_path / "plain.pt"))
    assert torch.equal(model.classifier.weight, plain.classifier.weight)  # drawn as ever


def test_a_look_at_the_backbone_draws_no_numbers(tmp_path, resnet, monkeypatch):
    path, look = stored(resnet, tmp_path / "a.pt"), timm_backbone.expected_tensors
    alone = built(path)
    monkeypatch.setattr(timm_backbone, "expected_tensors", lambda name: torch.rand(3) is not None and look(name))
    assert torch.equal(built(path).classifier.weight, alone.classifier.weight)


def test_the_numbers_drawn_are_as_ever(tmp_path, resnet):
    """A literal repetition: what a file is compared with may not move the classifier's first weights."""
    path, overlay = stored(resnet, tmp_path / "a.pt"), {"state_dict": dict(resnet), "label_offset": 0}
    torch.manual_seed(7)
    backbone = timm.create_model(RESNET, pretrained=True, pretrained_cfg_overlay=overlay)
    backbone.reset_classifier(0)
    literal = nn.Linear(backbone.num_features, 3)
    assert torch.equal(built(path).classifier.weight, literal.weight)


def test_a_run_can_start_from_the_model_of_another(tmp_path, told):
    torch.manual_seed(1)
    source = timm_model(CLASSES, backbone=RESNET, pretrained=False, image_size=64)
    content = {"args": {}, "model_hparams": {"lr": 0.1}, "model_num_classes": 3, "model_dict": source.state_dict()}
    model = built(stored(content, tmp_path / "model.pkl"))
    assert_holds(model, source.featurizer[0].state_dict())
    assert "behind 'featurizer.0.', left 2 (classifier.weight, classifier.bias)" in told()


def test_a_transformer_of_another_size_is_resampled(tmp_path):
    torch.manual_seed(3)
    state = timm.create_model(VIT).state_dict()
    path = stored({"model": prefixed({n: t for n, t in state.items() if "head" not in n}, "net.")}, tmp_path / "a.pt")
    model = timm_model(CLASSES, backbone=VIT, checkpoint=str(path), image_size=96)
    assert model.featurizer[0].pos_embed.shape != state["pos_embed"].shape
    assert torch.equal(model.featurizer[0].blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


def test_shapes_that_differ_are_named(tmp_path, resnet):
    path = stored({"model": prefixed(resnet | {"bn1.bias": torch.zeros(7)}, "net.")}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"read as timm's test_resnet:\n  - bn1\.bias should be 32\. Found 7\.$"):
        built(path)


def test_a_larger_network_is_refused(tmp_path, resnet):
    path = stored(prefixed(resnet | {"layer4.1.conv1.weight": torch.zeros(7)}, "net."), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"  - layer4\.1\.conv1\.weight is not part of the model\.$"):
        built(path)


# CLIP


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: TINY)
    return random_state(TINY)


def test_clip_inside_something_else(tiny, tmp_path):
    path = stored(
        {"state_dict": prefixed(tiny, "model.clip.") | {"head.weight": torch.zeros(2)}}, tmp_path / "a.ckpt.pt"
    )
    found = clip.load_clip(str(path), "gelu").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in tiny.items())


def trained(state, path):
    """The model.pkl of a finished run: the image tower, without the text tower."""
    torch.manual_seed(0)
    model = clip_vit_b16(CLASSES, weights=str(path), activation="gelu")
    return SimpleNamespace(model=model, file={"args": {}, "model_hparams": {}, "model_dict": model.state_dict()})


def test_clip_from_the_model_of_another_run(tiny, tmp_path, told):
    first = trained(tiny, stored(tiny, tmp_path / "clip.pt"))
    path = str(stored(first.file, tmp_path / "model.pkl"))
    second = clip_vit_b16(CLASSES, weights=path, activation="gelu", head="linear")
    found, theirs = second.featurizer.state_dict(), first.model.featurizer.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.items())
    assert "behind 'featurizer.0.'" in told()
    with pytest.raises(UserError, match=r'image tower without its text tower.*zero-shot head.*\{"head": "linear"\}'):
        clip_vit_b16(CLASSES, weights=path, activation="gelu")


def test_clip_with_a_hole_in_its_text_tower(tiny, tmp_path):
    path = stored({name: tensor for name, tensor in tiny.items() if name != "ln_final.bias"}, tmp_path / "clip.pt")
    with pytest.raises(UserError, match=r"  - ln_final\.bias \(64\) is missing\.$"):
        clip_vit_b16(CLASSES, weights=str(path), activation="gelu")


def test_clip_with_a_linear_head_from_both_towers(tiny, tmp_path):
    path = stored(tiny, tmp_path / "clip.pt")
    model = clip_vit_b16(CLASSES, weights=str(path), activation="gelu", head="linear")
    assert torch.equal(model.featurizer[0].proj, tiny["visual.proj"])
    broken = stored(tiny | {"visual.proj": torch.zeros(3, 3)}, tmp_path / "broken.pt")
    with pytest.raises(UserError, match=r"proj should be 64×16\. Found 3×3\."):
        clip_vit_b16(CLASSES, weights=str(broken), activation="gelu", head="linear")


def test_our_own_model_file_can_be_read(tmp_path):
    folder = run(small_config(steps=1), tmp_path / "run")
    found = read(folder / "model.pkl")
    assert list(found) == list(torch.load(folder / "model.pkl", weights_only=True)["model_dict"])
