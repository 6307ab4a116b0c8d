"""A residual network or LeNet that all tasks share, and a linear head for each, for images with several labels."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import timm
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.models.multitask import MultiTaskModel, Output

SMALLEST = 32  # pixels per side that every residual network takes
LENET_SIDE = 36  # pixels per side that LeNet takes


class SharedTrunk(MultiTaskModel):
    """Outputs = linear heads of the features of one trunk.

    Args:
        outputs: the K tasks.
        trunk: images [N, C, H, W] -> features [N, D].
        features: D.
        probe: see `MultiTaskModel`.
    """

    def __init__(self, outputs: Sequence[Output], trunk: nn.Module, features: int, probe: tuple[int, int, int]) -> None:
        super().__init__(outputs, probe)
        self.trunk = trunk
        self.pred = nn.ModuleList(nn.Linear(features, output.channels) for output in outputs)

    def raw(self, x: Tensor) -> list[Tensor]:
        """See `MultiTaskModel.raw`."""
        features = self.trunk(x)
        return [head(features) for head in self.pred]


def resnet_heads(
    outputs: Sequence[Output],
    *,
    backbone: Literal["resnet18", "resnet34", "resnet50"] = "resnet18",
    channels: Annotated[int, Field(ge=1)] = 3,
) -> SharedTrunk:
    """Build a residual network without weights, whose last layer makes way for a linear head for each task.

    F-MTL (Phan et al., appendix C.2) has ResNet-18 with two heads for MultiMNIST (36 pixels, one channel), and
    ResNet-50 with 40 for CelebA (64 pixels). The initialisation is torchvision's.

    Args:
        outputs: the K tasks.
        backbone: which network.
        channels: channels of the images.
    """
    trunk: Any = timm.create_model(backbone, num_classes=0, in_chans=channels, zero_init_last=False)
    return SharedTrunk(outputs, trunk, trunk.num_features, (channels, SMALLEST, SMALLEST))


def lenet_heads(outputs: Sequence[Output], *, channels: Annotated[int, Field(ge=1)] = 3) -> SharedTrunk:
    """Build LeNet for images of 36 pixels, the network of most papers on MultiMNIST before F-MTL.

    Source: Lin et al. (Pareto multi-task learning), NeurIPS 2019, after Sener and Koltun, NeurIPS 2018: convolutions of
    9 x 9 and 5 x 5 with 10 and 20 channels, each with ReLU and max-pooling, and 50 features. The initialisation is
    PyTorch's.

    Args:
        outputs: the K tasks.
        channels: channels of the images.
    """
    trunk = nn.Sequential(
        nn.Conv2d(channels, 10, 9),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(10, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(500, 50),
        nn.ReLU(),
    )
    return SharedTrunk(outputs, trunk, 50, (channels, LENET_SIDE, LENET_SIDE))
