"""CLIP's ViT-B/16 image tower, through open_clip."""

from collections.abc import Sequence

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import nn

from domainbed_sage.models.base import ImageSpec, Model
from domainbed_sage.models.registry import register


@register("clip_vit_b16", lr=1e-6, batch_size=12)
def clip_vit_b16(classes: Sequence[str]) -> Model:
    """Build the image tower of CLIP ViT-B/16 (QuickGELU, projection to 512 features) with a linear classifier.

    The weights are random: reading pretrained weights and the text-initialised head are not written yet, so no number
    of the paper can come out of this model as it stands. Learning rate and batch size are the paper's (Appendix E).
    """
    tower = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None).visual
    image = ImageSpec(224, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    return Model(tower, nn.Linear(tower.output_dim, len(classes)), image)
