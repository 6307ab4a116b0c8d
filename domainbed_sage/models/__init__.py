"""Models by name; importing a file registers what it builds."""

from domainbed_sage.models.base import ImageSpec, Model
from domainbed_sage.models.multitask import MultiTaskModel
from domainbed_sage.models.registry import ModelSpec, models
from domainbed_sage.models.registry import build as build_model
from domainbed_sage.models.registry import register as register_model

from domainbed_sage.models import small_cnn  # isort: skip
from domainbed_sage.models import efficientnet  # isort: skip
from domainbed_sage.models import timm_backbone  # isort: skip
from domainbed_sage.models import clip  # isort: skip
from domainbed_sage.models import muon  # isort: skip
from domainbed_sage.models import prompts  # isort: skip

__all__ = [
    "ImageSpec",
    "Model",
    "ModelSpec",
    "MultiTaskModel",
    "build_model",
    "clip",
    "efficientnet",
    "models",
    "muon",
    "prompts",
    "register_model",
    "small_cnn",
    "timm_backbone",
]
