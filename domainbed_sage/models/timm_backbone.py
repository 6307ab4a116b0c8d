"""Any backbone of timm, with a linear classifier."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from pydantic import Field
from torch import nn

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Choice, DrawnAs
from domainbed_sage.models.base import ImageSpec, Model
from domainbed_sage.models.checkpoints import check_tensors, read, sha256_of
from domainbed_sage.models.fitting import fitted
from domainbed_sage.models.registry import Provenance, register
from domainbed_sage.models.weights import TIMM, canonical, find, timm_config

MOST_LINES = 12


def expected_tensors(backbone: str) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of a backbone at its own image size, with its original classifier."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in timm.create_model(backbone).state_dict().items()}


def with_linear_head(
    backbone: Any, classes: Sequence[str], *, image_size: int, freeze_bn: bool, dropout: float
) -> Model:
    """Put dropout and a new linear classifier in place of a timm model's own; mean and deviation stay the backbone's.

    Args:
        backbone: a timm model.
        classes: names of the C classes.
        image_size: side length of the images, pixels.
        freeze_bn: keep BatchNorm statistics as stored, see `Model`.
        dropout: probability of dropping a feature in training.

    Raises:
        UserError: the backbone cannot take images of this size.
    """
    config = backbone.pretrained_cfg
    backbone.reset_classifier(0)
    with torch.no_grad(), _explained(config["architecture"], image_size):
        width = backbone.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1]
    featurizer = nn.Sequential(backbone, nn.Dropout(dropout))
    image = ImageSpec(image_size, config["mean"], config["std"])
    return Model(featurizer, nn.Linear(width, len(classes)), image, freeze_bn=freeze_bn)


def _source(hparams: Mapping[str, Any]) -> tuple[str, Path] | None:
    """Name and file of the weights, if the model starts from any."""
    timm_config(hparams["backbone"])
    if hparams["checkpoint"]:
        return hparams["checkpoint"], find(hparams["checkpoint"])
    if hparams["pretrained"]:
        name = canonical(TIMM + hparams["backbone"])
        return name, find(name)
    return None


def _require(hparams: Mapping[str, Any]) -> Provenance:
    source = _source(hparams)
    return {"name": source[0], "sha256": sha256_of(source[1])} if source else {"name": "none", "sha256": None}


@register("timm", require=_require, without_weights={"pretrained": False, "checkpoint": ""})
def timm_model(
    classes: Sequence[str],
    *,
    backbone: str = "resnet50",
    pretrained: bool = True,
    checkpoint: str = "",
    freeze_bn: bool = True,
    image_size: Annotated[int, Field(ge=0)] = 224,
    dropout: Annotated[float, Field(ge=0, lt=1), Choice(0.0, 0.1, 0.5), DrawnAs("resnet_dropout")] = 0.0,
) -> Model:
    """Build a timm backbone with a linear classifier; mean and deviation of the images are the backbone's own.

    Resizing and cropping are those of the data options, not the backbone's, so that all models see equal images.

    Args:
        classes: names of the C classes.
        backbone: timm's name, with or without the tag of its weights: ``resnet50``, ``vit_base_patch16_224``,
            ``vit_base_patch14_dinov2.lvd142m``, ….
        pretrained: start from timm's weights, which ``domainbed-sage weights download timm:BACKBONE`` fetches.
        checkpoint: a file to start from instead: a path, or a name in the weights' folder. It holds the backbone under
            timm's names, perhaps as a part of something else (a finished run's ``model.pkl``, for instance), with any
            classifier or none; or in another format that timm translates.
        freeze_bn: keep BatchNorm statistics as stored, see `Model`.
        image_size: side length of the images, pixels; 0 = the backbone's own. Position embeddings are resampled.
        dropout: probability of dropping a feature in training.

    Raises:
        UserError: unknown backbone; missing, damaged or unfitting weights; a size that the backbone cannot take.
    """
    source = _source({"backbone": backbone, "pretrained": pretrained, "checkpoint": checkpoint})
    size = image_size or timm_config(backbone).input_size[-1]
    network = _create(backbone, source[1] if source else None, size)
    return with_linear_head(network, classes, image_size=size, freeze_bn=freeze_bn, dropout=dropout)


def _create(backbone: str, weights: Path | None, size: int) -> Any:
    config = timm_config(backbone)
    options: dict[str, Any] = {"img_size": size} if config.fixed_input_size else {}
    if weights is None:
        with _explained(backbone, size):
            return timm.create_model(backbone, **options)
    with torch.random.fork_rng(devices=[]):  # the numbers drawn below do not depend on what is looked up here
        expected = expected_tensors(backbone)
    classifier = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    state = fitted(read(weights), expected, weights, tuple(filter(None, classifier)))
    options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(state), "label_offset": 0}}
    try:
        with _explained(backbone, size):
            network: Any = timm.create_model(backbone, **options)
    except UserError:
        check_tensors(state, expected, f"{weights}, read as timm's {backbone}")  # clearer, if the file is at fault
        raise
    network.pretrained_cfg.pop("state_dict", None)
    return network


@contextmanager
def _explained(backbone: str, size: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # backbones differ in what they raise
        reasons = "\n".join(str(error).splitlines()[:MOST_LINES])
        raise UserError(f"timm cannot build {backbone!r} for {size}-pixel images: {reasons}") from error
