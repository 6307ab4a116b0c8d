"""Any timm backbone: BatchNorm, normalisation, sizes, weights from files, and no way to the network."""

import argparse
import socket

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F

from domainbed_sage.cli import weights as command
from domainbed_sage.core import network
from domainbed_sage.core.errors import UserError
from domainbed_sage.models import models, weights
from domainbed_sage.models.timm_backbone import timm_model

CLASSES = ("cat", "dog", "fish")
VIT = "test_vit"  # timm's smallest: 371,240 parameters, 160 pixels
STORED = "timm-test_vit.r160_in1k.safetensors"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty weights' folder, and no network."""

    def refused(self, address):
        raise AssertionError(f"network access to {address}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setenv("DOMAINBED_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def hub(monkeypatch):
    """timm with a hub that answers: its pretrained ViT has the weights that seed 5 draws."""
    create = timm.create_model

    def pretrained_vit(backbone, pretrained=False, cache_dir=None, **options):
        assert not pretrained or cache_dir or "pretrained_cfg_overlay" in options
        if cache_dir:
            torch.manual_seed(5)
            return create(backbone, **options)
        return create(backbone, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", pretrained_vit)
    monkeypatch.setattr(network, "check_reachable", lambda url: None)
    torch.manual_seed(5)
    return create(VIT)


def statistics(model):
    return [t.clone() for m in model.batch_norms() for t in (m.running_mean, m.running_var, m.num_batches_tracked)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Building


def test_resnet_keeps_its_statistics_by_default():
    model = timm_model(CLASSES, pretrained=False, image_size=64)
    assert len(list(model.batch_norms())) == 53
    before = statistics(model)
    model.train()
    logits = model(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 3)
    assert not model.mixes_samples
    assert same(statistics(model), before)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_statistics_never_move_at_perturbed_weights():
    model = timm_model(CLASSES, backbone="test_resnet", pretrained=False, freeze_bn=False)
    images = torch.randn(4, 3, 64, 64)
    before = statistics(model)
    with model.frozen_statistics():
        model(images)
    assert same(statistics(model), before)
    model(images)
    assert not same(statistics(model), before)
    assert model.mixes_samples


@pytest.mark.parametrize("backbone", [VIT, "mobilenetv3_small_050"])
def test_images_are_those_of_the_backbone(backbone):
    model = timm_model(CLASSES, backbone=backbone, pretrained=False, image_size=0)
    config = timm.data.resolve_model_data_config(timm.create_model(backbone))
    assert model.image.size == config["input_size"][-1]
    assert (model.image.mean, model.image.std) == (config["mean"], config["std"])


@pytest.mark.parametrize("backbone", [VIT, "vit_small_patch14_dinov2", "mobilenetv3_small_050"])
def test_backbones_of_all_kinds_take_other_sizes(backbone):
    model = timm_model(CLASSES, backbone=backbone, pretrained=False, image_size=112)
    assert model.image.size == 112
    assert model(torch.randn(2, 3, 112, 112)).shape == (2, 3)


def test_dropout_acts_in_training_only():
    model = timm_model(CLASSES, backbone="test_resnet", pretrained=False, dropout=0.5)
    images = torch.randn(2, 3, 64, 64)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


# Weights


def hparams(**given):
    return {"backbone": VIT, "pretrained": True, "checkpoint": ""} | given


def test_missing_weights_name_the_command_and_ask_no_network(folder):
    for start in (lambda: models["timm"].require(hparams()), lambda: timm_model(CLASSES, backbone=VIT)):
        with pytest.raises(UserError) as caught:
            start()
        wanted = "domainbed-sage weights download timm:test_vit.r160_in1k\n"
        assert wanted in str(caught.value)
    assert models["timm"].require(hparams(pretrained=False)) == {"name": "none", "sha256": None}


def test_downloaded_weights_are_those_of_timm(hub, folder):
    path = weights.download(f"timm:{VIT}")
    assert path == folder / STORED
    assert models["timm"].require(hparams()) == {
        "name": "timm:test_vit.r160_in1k",
        "sha256": weights.sha256_of(path),
    }
    model = timm_model(CLASSES, backbone=VIT, image_size=0)
    backbone = model.featurizer[0]
    expected = {name: value for name, value in hub.state_dict().items() if not name.startswith("head.")}
    assert backbone.state_dict().keys() == expected.keys()
    assert same(backbone.state_dict().values(), expected.values())
    assert "state_dict" not in backbone.pretrained_cfg


def test_positions_are_resampled_for_another_size(hub):
    weights.download(f"timm:{VIT}")
    small = timm_model(CLASSES, backbone=VIT, image_size=80).featurizer[0].state_dict()
    assert small["pos_embed"].shape == (1, 1 + 5 * 5, 64)
    assert torch.equal(small["pos_embed"][:, 0], hub.pos_embed[:, 0])
    assert torch.equal(small["blocks.3.attn.qkv.weight"], hub.blocks[3].attn.qkv.weight)


def test_a_checkpoint_of_ones_own(tmp_path):
    torch.manual_seed(7)
    source = timm.create_model("test_resnet")
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(source.state_dict(), path)
    model = timm_model(CLASSES, backbone="test_resnet", checkpoint=str(path))
    assert torch.equal(model.featurizer[0].layer4[0].conv1.weight, source.layer4[0].conv1.weight)
    found = models["timm"].require(hparams(backbone="test_resnet", checkpoint=str(path)))
    assert found == {"name": str(path), "sha256": weights.sha256_of(path)}


def test_tensors_of_another_backbone_are_refused(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(64, 3, 5, 5)
    del state["bn1.bias"]
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(state, path)
    with pytest.raises(UserError) as caught:
        timm_model(CLASSES, backbone="test_resnet", checkpoint=str(path))
    assert "  - bn1.bias (32) is missing.\n" in str(caught.value)
    assert "  - layer1.0.conv1.weight should be 32×32×3×3. Found 64×3×5×5." in str(caught.value)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(UserError, match=r"does not know the backbone 'resnet51'.*Nearest: .*resnet50,"):
        models["timm"].require(hparams(backbone="resnet51", pretrained=False))
    with pytest.raises(
        UserError, match=r"does not know the backbone 'test_resnet\.x'.*Nearest: .*test_resnet\.r160_in1k"
    ):
        timm_model(CLASSES, backbone="test_resnet.x", pretrained=False)


def test_an_impossible_size_is_refused():
    with pytest.raises(UserError, match=r"cannot build 'test_vit' for 8-pixel images: Input height"):
        timm_model(CLASSES, backbone=VIT, pretrained=False, image_size=8)


def test_a_hub_that_cannot_be_reached_is_explained(folder, monkeypatch):
    def unreachable(*names, **options):
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(network, "check_reachable", lambda url: None)
    with pytest.raises(UserError, match=r"downloaded:\n  - timm: no route to the hub\.\nRun this on a machine"):
        weights.download(f"timm:{VIT}")
    assert list(folder.iterdir()) == []


def test_check_compares_with_the_backbone(hub, folder, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.main(parser.parse_args(["download", f"timm:{VIT}"])) == 0
    assert "371,240 values, 80 tensors, 28 of them matrices" in capsys.readouterr().out
    state = safetensors.torch.load_file(folder / STORED)
    del state["norm.bias"]
    (folder / f"{STORED}.sha256").unlink()
    safetensors.torch.save_file(state, folder / STORED)
    with pytest.raises(UserError, match=r"norm\.bias \(64\) is missing"):
        command.main(parser.parse_args(["check", f"timm:{VIT}"]))
