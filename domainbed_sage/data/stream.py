"""The training minibatches: the one of step t is a pure function of the run's seed and t."""

from collections.abc import Generator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from domainbed_sage.core.seeding import generator, step_seed
from domainbed_sage.data.batch import DomainBatch
from domainbed_sage.data.environment import Environment
from domainbed_sage.data.loaders import loaded
from domainbed_sage.data.transforms import Transform


class TrainStream(Dataset[DomainBatch]):
    """Item t is the minibatch of step t.

    Each source domain gives `batch_size` rows, drawn with replacement from its in split as DomainBed does. Which rows,
    and how they are augmented, depends on (seed, t) alone: the stream is the same for any number of loader workers and
    after any restart.

    Args:
        sources: the source environments.
        indices: in-split indices of each source environment.
        batch_size: rows per domain.
        transform: random transform of one training image.
        seed: seed of the run.
    """

    def __init__(
        self,
        sources: Sequence[Environment],
        indices: Sequence[np.ndarray],
        batch_size: int,
        transform: Transform,
        seed: int,
    ) -> None:
        self.sources, self.indices = sources, indices
        self.batch_size, self.transform, self.seed = batch_size, transform, seed

    def rows(self, step: int) -> list[np.ndarray]:
        """Sample indices of each source domain at one step, K arrays of [batch_size]."""
        return [
            keys[generator(self.seed, "rows", step, k).integers(len(keys), size=self.batch_size)]
            for k, keys in enumerate(self.indices)
        ]

    def __getitem__(self, step: int) -> DomainBatch:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(step_seed(self.seed, "augment", step))
            pairs = [
                (self.transform(env.image(i)), env.labels[i])
                for env, rows in zip(self.sources, self.rows(step), strict=True)
                for i in rows
            ]
        x = torch.stack([image for image, _ in pairs])
        y = torch.tensor(np.array([label for _, label in pairs]))
        return DomainBatch(x, y, (self.batch_size,) * len(self.sources))

    def batches(
        self, start: int, stop: int, num_workers: int = 0, pin_memory: bool = False
    ) -> Generator[DomainBatch, None, None]:
        """Minibatches of the steps start, …, stop - 1; see `loaders.loaded`, also for why to close the generator."""
        return loaded(self, range(start, stop), num_workers, pin_memory=pin_memory)
