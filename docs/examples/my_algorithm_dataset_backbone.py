"""My algorithm, my dataset, my backbone: register the three, train with each environment held out, print the table.

    python docs/examples/my_algorithm_dataset_backbone.py /tmp/shapes

For sweeps, `sweep run`, and `train --plugin`, put what is above `main` into a file of its own, and name it as a plugin.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import nn

from domainbed_sage import Algorithm, Machine, make_config, register, run, table
from domainbed_sage.algorithms import Metrics, Problem
from domainbed_sage.core.hparams import Choice
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.specs import DatasetSpec, datasets
from domainbed_sage.models.base import ImageSpec, Model
from domainbed_sage.models.registry import register as register_model


@register("ANDMask")
class ANDMask(Algorithm):
    """Descend where the signs of the domain gradients agree (Parascandolo et al., ICLR 2021)."""

    def __init__(
        self, problem: Problem, *, agreement: Annotated[float, Field(ge=0, le=1), Choice(0.5, 1.0)] = 1.0
    ) -> None:
        super().__init__(problem)
        self.agreement = agreement

    def update(self, batch: DomainBatch) -> Metrics:
        """See `Algorithm.update`."""
        losses, gradients = self.domain_gradients(batch)  # [K], K gradients
        masked = []
        for parts in zip(*gradients, strict=True):  # of one parameter
            g = torch.stack(parts)  # [K, ...]
            masked.append(g.mean(0) * (g.sign().mean(0).abs() >= self.agreement))
        self.descend(tuple(masked))
        return {"loss": losses.mean()}


ENVIRONMENTS = ("black_on_white", "coloured", "white_on_black")
PAPER_AND_INK = {"black_on_white": ([255] * 3, [0] * 3), "white_on_black": ([0] * 3, [255] * 3)}
CLASSES = ("disc", "square")


def read_shapes(data_dir: Path | None) -> MultiDomainDataset:
    """Read the images of `draw_shapes`, in DomainBed's layout: environment/class/image."""
    return read_folders(Path(data_dir or ".") / "Shapes", "Shapes", ENVIRONMENTS)


datasets.register("Shapes")(
    DatasetSpec("Shapes", ENVIRONMENTS, len(CLASSES), read_shapes, steps=31, checkpoint_freq=10, model="tiny")
)


@register_model("tiny", lr=1e-2, batch_size=8)
def tiny(classes: Sequence[str], *, width: Annotated[int, Field(ge=1), Choice(4, 8)] = 8) -> Model:
    """Two convolutions; any featurizer and classifier will do, those of timm or of torchvision too."""
    featurizer = nn.Sequential(
        *(nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    )
    return Model(featurizer, nn.Linear(4 * width, len(classes)), ImageSpec(24, (0.5,) * 3, (0.5,) * 3))


def draw_shapes(folder: Path, images: int = 20) -> None:
    """Draw discs and squares of random size and place, `images` of each class in each environment."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24]
    for environment in ENVIRONMENTS:
        for shape in CLASSES:
            (folder / environment / shape).mkdir(parents=True, exist_ok=True)
            for at in range(images):
                centre, radius = rng.uniform(8, 16, 2), rng.uniform(4, 7)
                distance = np.stack([abs(x - centre[0]), abs(y - centre[1])])
                inside = (np.hypot(*distance) if shape == "disc" else distance.max(0)) < radius
                paper, ink = rng.integers(0, 256, (2, 3)) if environment == "coloured" else PAPER_AND_INK[environment]
                pixels = np.where(inside[..., None], ink, paper)  # [24, 24, 3]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / environment / shape / f"{at:02}.png")


def main(folder: Path) -> None:
    """Draw the images, train, and print the table; a second call finds the runs finished."""
    draw_shapes(folder / "data" / "Shapes")
    for algorithm in ("ERM", "ANDMask"):
        for environment in ENVIRONMENTS:
            config = make_config(dataset="Shapes", algorithm=algorithm, test_envs=[environment])
            run(config, Machine(output_dir=folder / "results" / config.folder_name, data_dir=folder / "data"))
    print(table(folder / "results"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
