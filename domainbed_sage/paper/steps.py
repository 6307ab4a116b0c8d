"""Steps whose cost is counted and timed: three networks, K losses, and SAGE in two forms.

«As written» is the reading of Algorithm 1 and Appendix G: one forward call over the concatenated minibatches, and K
calls of autograd for the K gradients. Each of these passes back over the whole batch. «Here» is the suite's: where no
layer mixes samples, every domain passes alone, with the same gradients at the price of one pass over the batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from domainbed_sage.algorithms.base import Algorithm, Problem
from domainbed_sage.algorithms.erm import ERM
from domainbed_sage.algorithms.objectives import Domains, Objectives
from domainbed_sage.algorithms.sage import SAGE
from domainbed_sage.algorithms.sam import SAM
from domainbed_sage.algorithms.task_objectives import TaskObjectives
from domainbed_sage.data.batch import DomainBatch, TaskBatch
from domainbed_sage.geometry.perturb import Survival
from domainbed_sage.models.mtan_segnet import mtan_segnet
from domainbed_sage.models.optimizers import optimizers
from domainbed_sage.models.timm_backbone import timm_model
from domainbed_sage.tasks import Depth, Normals, Segmentation

CLASSES = [f"class {i}" for i in range(65)]  # as many as OfficeHome has


class OneGraph(Domains):
    """The gradients of all domains from one forward pass and K backward passes, whatever the network."""

    def gradients(self, batch: Any) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """See `Objectives.gradients`."""
        return Objectives.gradients(self, batch)


class Size(NamedTuple):
    """How large a network and its minibatch are.

    Attributes:
        backbone: timm's name; empty for MTAN on SegNet.
        rows: images of every domain, or of the minibatch where the losses are of tasks.
        height, width: of an image.
        channels: of MTAN's first stage.
    """

    backbone: str
    rows: int
    height: int
    width: int
    channels: int = 64

    @property
    def words(self) -> str:
        """For people."""
        name = self.backbone or f"MTAN on SegNet with {self.channels} channels"
        rows = f"{self.rows} images" + (" of each domain" if self.backbone else "")
        return f"{name}, {rows}, {self.height} x {self.width}"


FULL = {  # network to the size that is counted
    "ViT-B/16": Size("vit_base_patch16_224", 12, 224, 224),
    "ResNet-50": Size("resnet50", 12, 224, 224),
    "MTAN-SegNet": Size("", 2, 288, 384),
}
SMALL = {  # to the one that is timed
    "ViT-B/16": Size("vit_tiny_patch16_224", 4, 64, 64),
    "ResNet-50": Size("resnet50", 4, 64, 64),
    "MTAN-SegNet": Size("", 2, 96, 128, 16),
}
TASKS = (Segmentation(13), Depth(), Normals(), Segmentation(7, "coarse"), Depth("second"), Normals("third"))

METHODS: dict[str, tuple[type[Algorithm], bool]] = {  # name to its class, and whether all losses share one graph
    "ERM": (ERM, False),
    "SAM": (SAM, False),
    "SAGE as written": (SAGE, True),
    "SAGE here": (SAGE, False),
}


def network(size: Size, K: int) -> nn.Module:
    """The network, for K source domains or with K outputs; BatchNorm keeps its own statistics, as in DomainBed."""
    if not size.backbone:
        return mtan_segnet(TASKS[:K], width=size.channels)
    return timm_model(CLASSES, backbone=size.backbone, pretrained=False, image_size=size.height)


def batch(size: Size, K: int, numbers: Callable[..., Tensor] = torch.zeros) -> DomainBatch | TaskBatch:
    """A minibatch of images from `numbers`, all of the first class, or with targets of ones."""
    if size.backbone:
        n = K * size.rows
        return DomainBatch(numbers(n, 3, size.height, size.width), torch.zeros(n, dtype=torch.long), (size.rows,) * K)
    there = (size.rows, size.height, size.width)
    depth, normal = torch.ones(size.rows, 1, *there[1:]), torch.ones(size.rows, 3, *there[1:])
    targets = {Segmentation: torch.zeros(there), Depth: depth, Normals: normal}
    return TaskBatch(numbers(size.rows, 3, *there[1:]), tuple(targets[type(task)] for task in TASKS[:K]))


def algorithm(model: Any, method: str, size: Size, K: int, ns_steps: int = 5) -> Algorithm:
    """The method on a network, ready for `update`; its first step is not measured by the guard."""
    cls, one_graph = METHODS[method]
    objectives: Any = OneGraph if one_graph else Domains
    if not size.backbone:
        objectives = partial(TaskObjectives, tasks=TASKS[:K], heads=model.heads(model.code_shared))
    make_optimizer = partial(optimizers["adam"], lr=1e-6)
    problem = Problem(model, make_optimizer, K, objectives=objectives)
    made = SAGE(problem, ns_steps=ns_steps) if cls is SAGE else cls(problem)
    made.survival = Survival(1.0, 1.0)
    return made
