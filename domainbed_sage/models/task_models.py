"""The networks with one output for each task, by name."""

from domainbed_sage.core.registry import Registry
from domainbed_sage.models.mtan_segnet import mtan_segnet
from domainbed_sage.models.registry import ModelSpec
from domainbed_sage.models.scene_unet import scene_unet
from domainbed_sage.models.shared_trunk import lenet_heads, resnet_heads

# Builders are given the tasks in the place of class names, and return a `MultiTaskModel`.
task_models: Registry[ModelSpec] = Registry("multi-task model", ModelSpec)
task_models.register("mtan_segnet")(ModelSpec(mtan_segnet))
task_models.register("resnet_heads")(ModelSpec(resnet_heads))
task_models.register("scene_unet")(ModelSpec(scene_unet))
task_models.register("lenet_heads")(ModelSpec(lenet_heads))
