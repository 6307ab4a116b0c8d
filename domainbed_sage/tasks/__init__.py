"""What the outputs of a multi-task network are to predict: losses, metrics, and how a crop changes their targets."""

from domainbed_sage.tasks.augment import Crop
from domainbed_sage.tasks.base import Meter, Task
from domainbed_sage.tasks.labels import Attribute, Classification
from domainbed_sage.tasks.scenes import Depth, Normals, SceneTask, Segmentation

__all__ = [
    "Attribute",
    "Classification",
    "Crop",
    "Depth",
    "Meter",
    "Normals",
    "SceneTask",
    "Segmentation",
    "Task",
]
