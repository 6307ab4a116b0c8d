"""The first check of a lab, from runs to a verdict, on real images and with set-ups that are wrong on purpose.

CLIP's part is played by a small network that was trained on EmojiStyles: its accuracies, as it was trained, stand for
the published ones. What can be wrong with CLIP can be wrong with it: weights, normalization, and the order of labels.
"""

import pytest
import torch
from helpers import on_cpu, run, small_config
from torch import nn

from domainbed_sage.config import make_config
from domainbed_sage.data.emoji import load_small
from domainbed_sage.models import Model, register_model
from domainbed_sage.models.base import ImageSpec
from domainbed_sage.models.registry import models
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.zero_shot import Reference, check, whole
from domainbed_sage.training import train

pytestmark = pytest.mark.usefixtures("forget_plugins")
DATASETS = ("EmojiStyles", "EmojiStylesDisjoint")
EXPECTED = {"weights": "trained", "normalization": "own"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The weights after a short training."""
    folder = run(
        small_config(steps=250, checkpoint_freq=250, hparams={"batch_size": 16, "lr": 3e-3}),
        tmp_path_factory.mktemp("t"),
    )
    return torch.load(folder / "model.pkl", weights_only=True)["model_dict"]


@pytest.fixture
def stand_in(trained, forget_plugins):
    @register_model("stand_in")
    def stand_in(
        classes, *, weights: str = "trained", normalization: str = "own", order: str = "", blurred: int = 1
    ) -> Model:
        torch.manual_seed(1)
        model = models["small_cnn"].build(classes, width=8)
        if weights == "trained":
            model.load_state_dict(trained)
        if order == "shuffled":
            with torch.no_grad():
                model.classifier.weight.copy_(model.classifier.weight.roll(3, 0))
        if normalization == "wrong":
            model.image = ImageSpec(model.image.size, (0.0, 0.0, 0.0), (3.0, 3.0, 3.0))
        model.featurizer = nn.Sequential(nn.AvgPool2d(blurred, 1, blurred // 2), model.featurizer)
        return model


def runs(folder, datasets=DATASETS, **hparams):
    for dataset in datasets:
        for env in range(4):
            config = make_config(
                dataset=dataset,
                algorithm="ZeroShot",
                test_envs=[env],
                model="stand_in",
                steps=1,
                checkpoint_freq=1,
                hparams=hparams,
            )
            train.run(config, on_cpu(folder / config.folder_name, skip_model_save=True))
    return load_records(folder).records


@pytest.mark.usefixtures("stand_in")
def test_verdicts(tmp_path):
    right = runs(tmp_path / "right")
    references = {
        name: Reference(whole([r for r in right if r.dataset == name]), len(load_small().classes)) for name in DATASETS
    }
    assert min(reference.accuracy for reference in references.values()) > 40

    def advice(name, **hparams):
        return verdicts(runs(tmp_path / name, **hparams))

    def verdicts(records):
        return {v.dataset: "; ".join(v.advice) for v in check(records, references, EXPECTED)}

    assert verdicts(right) == dict.fromkeys(DATASETS, "")
    random = advice("random", weights="none")
    assert all(
        "weights is 'none', and the published numbers were made with 'trained'" in text for text in random.values()
    )
    assert all("the weights are not the expected ones" in text for text in random.values())
    wrong = advice("wrong", normalization="wrong")
    assert all("normalization is 'wrong'" in text for text in wrong.values())
    blurred = advice("blurred", blurred=5)
    assert all("resizing and interpolation; then at the images" in text for text in blurred.values())
    one = runs(tmp_path / "one", DATASETS[:1])
    other = runs(tmp_path / "other", DATASETS[1:], order="shuffled")
    mixed = verdicts([*one, *other])
    assert mixed[DATASETS[0]] == ""
    assert "its labels are in another order than its class names" in mixed[DATASETS[1]]
