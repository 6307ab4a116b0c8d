"""Rooms: synthetic indoor scenes with exact classes, depth and normals, made from a seed in seconds.

The embedded default of the multi-task half: it needs no file and no network. The images are rendered, not
photographed: rooms of plain boxes, cylinders and balls under one lamp without shadows. What is as in NYU-v2: three
tasks, 13 classes of the same names, 0 for unknown depth, (0, 0, 0) for unknown normals, -1 beside edges. What is not:
everything else; no number on Rooms says anything about NYU-v2.

Equal arguments give equal bits on every machine: see `room_solids` for the arithmetic.
"""

import numpy as np
import torch

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.seeding import generator
from domainbed_sage.data.multitask import room_plans, room_views
from domainbed_sage.data.multitask.base import TaskData, population
from domainbed_sage.data.multitask.facts import ROOMS_COUNTS, ROOMS_KINDS, ROOMS_SIZE
from domainbed_sage.data.multitask.room_views import View
from domainbed_sage.data.multitask.samples import ArraySamples

NAME = "Rooms"
LEAST = 8  # pixels of a side
NOTE = "synthetic: rendered rooms, no photographs"


def load(
    train: int = ROOMS_COUNTS["train"],
    test: int = ROOMS_COUNTS["test"],
    *,
    size: tuple[int, int] = ROOMS_SIZE,
    seed: int = 0,
) -> TaskData:
    """Render the dataset; a few ms for a scene of the default size.

    A scene is a function of the seed, its split and its number there, whatever the numbers of scenes are. With few
    scenes not every class occurs.

    Args:
        train: number of scenes to learn from.
        test: number of scenes to report on.
        size: height and width, pixels.
        seed: of all random numbers.

    Raises:
        UserError: a number is too small.
    """
    if train < 1 or test < 1 or min(size) < LEAST or seed < 0:
        raise UserError(
            f"{NAME} should have 1 or more scenes in each split, sides of {LEAST} pixels or more, and a seed of 0 or "
            f"more. Found train = {train}, test = {test}, size = {size[0]} x {size[1]}, seed = {seed}."
        )
    counts = {"train": train, "test": test}
    views = {split: [scene(split, i, size, seed) for i in range(n)] for split, n in counts.items()}
    contents = (array.tobytes() for split in counts for v in views[split] for array in vars(v).values())
    splits = {split: _samples(found) for split, found in views.items()}
    text = f"{population(counts, contents)}, synthetic"
    return TaskData(NAME, ROOMS_KINDS, splits["train"], splits["test"], text, notes=(NOTE,))


def scene(split: str, number: int, size: tuple[int, int] = ROOMS_SIZE, seed: int = 0) -> View:
    """Render one scene."""
    plan = room_plans.draw(generator(seed, f"{NAME} {split} plan", number))
    return room_views.view(plan, *size, generator(seed, f"{NAME} {split} view", number))


def _samples(views: list[View]) -> ArraySamples:
    images, labels, depths, normals = (
        torch.from_numpy(np.stack([getattr(v, name) for v in views])) for name in ("image", "label", "depth", "normal")
    )
    return ArraySamples(images, (labels.long(), depths, normals))
