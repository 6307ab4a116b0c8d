"""A residual network or LeNet that all tasks share, and a linear head for each, for images with several labels."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import timm
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.core.errors import UserError
from domainbed_sage.models.multitask import MultiTaskModel, Output

SMALLEST = 32  # pixels per side that every residual network takes
LENET_SIDE = 28  # pixels per side that LeNet takes


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
    """Build LeNet for images of 28 pixels, as Sener and Koltun have it for MultiMNIST.

    Source: Sener and Koltun, NeurIPS 2018, and the code of it: two convolutions of 5 x 5 with 10 and 20 channels, each
    with max-pooling and ReLU, 50 features, and a linear head for each task. The initialisation is PyTorch's.

    Differences from the paper: no dropout, so that a pass has no random numbers of its own.

    Args:
        outputs: the K tasks.
        channels: channels of the images.
    """
    trunk = nn.Sequential(
        nn.Conv2d(channels, 10, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(10, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        OfSide(LENET_SIDE // 7),
        nn.Flatten(),
        nn.Linear(320, 50),
        nn.ReLU(),
    )
    return SharedTrunk(outputs, trunk, 50, (channels, LENET_SIDE, LENET_SIDE))


class OfSide(nn.Module):
    """Features as they are, if they are as many pixels wide and high as they should be.

    Args:
        side: pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Return x.

        Raises:
            UserError: the images were of another size.
        """
        if tuple(x.shape[-2:]) != (self.side, self.side):
            raise UserError(
                f"lenet_heads takes images of {LENET_SIDE} x {LENET_SIDE} pixels. Found features of {x.shape[-2]} x "
                f"{x.shape[-1]} in the place of {self.side} x {self.side}: choose resnet_heads, which takes any size."
            )
        return x
