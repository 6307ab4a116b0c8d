"""A model of a plugin: what its builder returns is looked at before anything starts, and nothing is changed by that."""

import pytest
import torch
from helpers import run, weights
from torch import nn

from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.models import ImageSpec, Model, build_model, register_model
from domainbed_sage.sweeps.cost import step_cost

pytestmark = pytest.mark.usefixtures("forget_plugins")

HALF = (0.5, 0.5, 0.5)
CLASSES = ["cat", "dog"]


def featurizer(*more):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *more)


def own(make):
    """Register a builder under a new name, and build it."""
    register_model("own")(make)
    return build_model("own", CLASSES, {})


def fail(*_):
    raise RuntimeError("the plugin's own mistake")


class Fails(nn.Module):
    forward = fail


def frozen():
    model = Model(featurizer(), nn.Linear(4, 2), ImageSpec(32, HALF, HALF))
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda classes: None, r"The builder of model 'own' should return Model\(featurizer, .*Found NoneType"),
        (lambda classes: nn.Linear(2, 2), r"should return Model\(.*Found Linear"),
        (lambda classes: Model, r"should return Model\(.*Found type"),
        (lambda: None, r"Model 'own' could not be built: TypeError: .* takes 0 positional arguments"),
        (fail, r"Model 'own' could not be built: RuntimeError: the plugin's own mistake"),
        (lambda classes: Model(featurizer(), nn.Linear(4, 2), None), r"which images it takes: .*Found None"),
        (lambda classes: Model(featurizer(), nn.Linear(4, 2), ImageSpec("32", HALF, HALF)), r"images.*size='32'"),
        (lambda classes: Model(featurizer(), nn.Linear(4, 2), ImageSpec(0, HALF, HALF)), r"images.*size=0"),
        (lambda classes: Model(featurizer(), nn.Linear(4, 2), ImageSpec(32, 0.5, HALF)), r"images.*mean=0\.5"),
        (lambda classes: Model(featurizer(), nn.Linear(4, 2), ImageSpec(32, HALF, (0.5,))), r"images.*std=\(0\.5,\)"),
        (lambda classes: Model(featurizer(), nn.Linear(4, 2), ImageSpec(32, HALF, (1, 0, 1))), r"images.*\(1, 0, 1\)"),
        (lambda classes: Model(featurizer(), nn.Linear(4, 2), ImageSpec(32, HALF, "abc")), r"images.*'abc'"),
        (lambda classes: frozen(), r"Model 'own' has nothing to train"),
        (
            lambda classes: Model(featurizer(), nn.Linear(4, 3), ImageSpec(32, HALF, HALF)),
            r"Model 'own' should return logits \[N, 2\] of N images\. Found \(1, 3\) of one image",
        ),
        (
            lambda classes: Model(featurizer(), nn.Linear(5, 2), ImageSpec(32, HALF, HALF)),
            r"cannot take an image of 32",
        ),
        (
            lambda classes: Model(featurizer(Fails()), nn.Linear(4, 2), ImageSpec(8, HALF, HALF)),
            r"8 pixels: the plugin",
        ),
        (lambda classes: Model(nn.Conv2d(3, 2, 3), nn.Identity(), ImageSpec(8, HALF, HALF)), r"Found \(1, 2, 6, 6\)"),
        (lambda classes: Model(featurizer(), nn.LSTM(4, 2), ImageSpec(8, HALF, HALF)), r"Found tuple of one image"),
    ],
)
def test_what_a_builder_must_not_do(make, message):
    with pytest.raises(UserError, match=message):
        own(make)


def config_of(model):
    settings = {"dataset": "EmojiStyles", "algorithm": "ERM", "test_envs": [0], "steps": 2}
    return make_config(model=model, hparams={"batch_size": 2}, **settings)


def test_the_message_comes_before_the_first_step(tmp_path):
    register_model("own")(lambda classes: nn.Linear(2, 2))
    with pytest.raises(UserError, match="should return Model"):
        step_cost(config_of("own"))
    with pytest.raises(UserError, match="should return Model"):
        run(config_of("own"), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("lock", "run.json", "out.txt", "err.txt", "failed.json")
    }


class Stateful(nn.Module):
    """Counts its passes in training, draws numbers, and has a part in a mode of its own."""

    def __init__(self):
        super().__init__()
        self.bn, self.dropout, self.still = nn.BatchNorm2d(3), nn.Dropout(0.5), nn.BatchNorm2d(3).eval()

    def forward(self, x):
        return self.still(self.bn(self.dropout(x))) + torch.rand(1)


def test_the_look_changes_nothing():
    def make(classes):
        torch.manual_seed(3)
        parts = nn.Sequential(Stateful(), *featurizer())
        model = Model(parts, nn.Linear(4, len(classes)), ImageSpec(32, HALF, HALF), freeze_bn=False)
        parts[0].still.eval()
        return model

    alone = make(CLASSES)
    drawn = torch.rand(5)
    looked_at = own(make)
    assert torch.equal(torch.rand(5), drawn)
    assert [m.training for m in looked_at.modules()] == [m.training for m in alone.modules()]
    for name, tensor in alone.state_dict().items():
        assert torch.equal(looked_at.state_dict()[name], tensor), name


def test_layers_that_take_shape_in_the_first_step(tmp_path):
    """They are not looked at: a pass would draw their weights."""

    def lazy(classes):
        return Model(nn.Flatten(), nn.LazyLinear(len(classes)), ImageSpec(8, HALF, HALF))

    register_model("lazy")(lazy)
    assert isinstance(build_model("lazy", CLASSES, {}).classifier, nn.LazyLinear)
    folder = run(config_of("lazy"), tmp_path / "run")
    assert weights(folder)["classifier.weight"].shape == (10, 192)
