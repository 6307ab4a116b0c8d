"""Small multi-task datasets for the tests, written out as the published ones are."""

from dataclasses import replace

import numpy as np

from domainbed_sage.data.multitask.facts import CITYSCAPES, NYU

HOMES = replace(NYU, size=(6, 8), counts={"train": 3, "test": 2})
CITY = replace(CITYSCAPES, size=(4, 8), counts={"train": 2, "test": 1})


def arrays(layout, seed):
    """Image and targets of one sample, channels last, by folder; a hole in depth and normals, an ignored label."""
    rng, (height, width) = np.random.default_rng(seed), layout.size
    normal = rng.normal(size=(height, width, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    targets = {
        "segmentation": rng.integers(0, layout.kinds["segmentation"].channels, (height, width)).astype(np.float32),
        "depth": (rng.uniform(0.1, 0.9, (height, width, 1)) * min(5, layout.kinds["depth"].largest)).astype(np.float32),
        "normal": normal.astype(np.float32),
    }
    targets["segmentation"][0, 0] = -1
    targets["depth"][:2, :2], targets["normal"][:2, :2] = 0, 0
    image = rng.uniform(0, 1, (height, width, 3)).astype(np.float32)
    return {"image": image} | {layout.folders.get(task, task): targets[task] for task in layout.kinds}


def write_layout(root, layout):
    """Write a whole dataset in MTAN's layout."""
    for split, folder in (("train", "train"), ("test", "val")):
        for i in range(layout.counts[split]):
            for kind, array in arrays(layout, 100 * len(folder) + i).items():
                (root / folder / kind).mkdir(parents=True, exist_ok=True)
                np.save(root / folder / kind / f"{i}.npy", array)
