"""The interface of a model: a featurizer, a classifier, and the images it expects; and what all networks share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class ImageSpec:
    """The images a model expects: side length in pixels, and per-channel mean and standard deviation in [0, 1]."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Network(nn.Module):
    """What every model says of its BatchNorm layers; their gains and biases are always trained.

    Attributes:
        freeze_bn: BatchNorm layers use and keep their stored statistics, also in training mode.
    """

    freeze_bn: bool = False

    def take_shapes(self, state: Mapping[str, Tensor]) -> None:
        """Give buffers whose shape is set by the first update, if there are any, the shapes of a stored state."""

    def batch_norms(self) -> Iterator[_BatchNorm]:
        """The BatchNorm layers."""
        return (m for m in self.modules() if isinstance(m, _BatchNorm))

    @property
    def mixes_samples(self) -> bool:
        """Whether a sample's outputs depend on the other rows of the batch (BatchNorm with batch statistics)."""
        return any(m.training or not m.track_running_stats for m in self.batch_norms())

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen BatchNorm layers stay in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            for m in self.batch_norms():
                m.eval()
        return self

    @contextmanager
    def frozen_statistics(self) -> Iterator[None]:
        """Keep running BatchNorm statistics unchanged inside the block; outputs stay those of the current mode."""
        layers = [(m, m.momentum) for m in self.batch_norms()]
        counts = [m.num_batches_tracked.clone() if m.num_batches_tracked is not None else None for m, _ in layers]
        try:
            for m, _ in layers:
                m.momentum = 0.0
            yield
        finally:
            for (m, momentum), count in zip(layers, counts, strict=True):
                m.momentum, m.num_batches_tracked = momentum, count


class Model(Network):
    """Logits = classifier(featurizer(images)).

    Args:
        featurizer: images [N, 3, H, W] -> features [N, D].
        classifier: features [N, D] -> logits [N, C].
        image: the images the featurizer expects.
        freeze_bn: BatchNorm layers use and keep their stored statistics, also in training mode; their gains and biases
            are trained anyway.
        class_features: the rows of the classifier's weight are features of the classes, from a text encoder.
    """

    def __init__(
        self,
        featurizer: nn.Module,
        classifier: nn.Module,
        image: ImageSpec,
        *,
        freeze_bn: bool = True,
        class_features: bool = False,
    ) -> None:
        super().__init__()
        self.class_features = class_features
        self.featurizer, self.classifier = featurizer, classifier
        self.image, self.freeze_bn = image, freeze_bn
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, C]."""
        return self.classifier(self.featurizer(x))
