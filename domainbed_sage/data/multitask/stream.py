"""Minibatches of samples with several targets: the one of step t is a pure function of the run's seed and t."""

from collections.abc import Generator, Sequence

from torch.utils.data import Dataset, default_collate

from domainbed_sage.core.seeding import generator
from domainbed_sage.data.batch import TaskBatch
from domainbed_sage.data.loaders import loaded
from domainbed_sage.data.multitask.samples import Sample, Samples
from domainbed_sage.tasks import Crop, SceneTask, Task
from domainbed_sage.tasks.augment import NUMBERS
from domainbed_sage.tasks.scenes import cropped


class TaskStream(Dataset[TaskBatch]):
    """Item t is the minibatch of step t.

    Every epoch passes all samples once, in an order of its own. Which samples, and how they are augmented, depends on
    (seed, t) alone: the stream is the same for any number of loader workers and after any restart.

    Args:
        samples: to learn from.
        tasks: what their targets are of.
        batch_size: samples of a minibatch; the last one of an epoch has the rest.
        augment: crop and flip scenes; samples of other tasks are never changed.
        seed: seed of the run.
    """

    def __init__(self, samples: Samples, tasks: Sequence[Task], batch_size: int, augment: bool, seed: int) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.scenes = tuple(task for task in tasks if isinstance(task, SceneTask)) if augment else ()
        self.steps_per_epoch = -(-len(samples) // batch_size)

    def rows(self, step: int) -> list[int]:
        """Numbers of the samples of one step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = generator(self.seed, "epoch", epoch).permutation(len(self.samples))
        return [int(row) for row in order[within * self.batch_size : (within + 1) * self.batch_size]]

    def __getitem__(self, step: int) -> TaskBatch:
        random = generator(self.seed, "augment", step)
        samples = [self._augmented(self.samples[row], random.random(NUMBERS).tolist()) for row in self.rows(step)]
        x, targets = default_collate(samples)
        return TaskBatch(x, tuple(targets))

    def _augmented(self, sample: Sample, uniform: Sequence[float]) -> Sample:
        if not self.scenes:
            return sample
        image, targets = sample
        crop = Crop.of(uniform, *image.shape[-2:])
        moved, *changed = cropped(image, targets, self.scenes, crop)
        return moved, tuple(changed)

    def batches(
        self, start: int, stop: int, num_workers: int = 0, pin_memory: bool = False
    ) -> Generator[TaskBatch, None, None]:
        """Minibatches of the steps start, …, stop - 1; see `loaders.loaded`, also for why to close the generator."""
        return loaded(self, range(start, stop), num_workers, pin_memory=pin_memory)


class OneTask(Samples):
    """Samples with the target of one of their tasks.

    Args:
        samples: with the targets of all tasks.
        k: number of the task.
    """

    def __init__(self, samples: Samples, k: int) -> None:
        self.samples, self.k = samples, k

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        image, targets = self.samples[index]
        return image, (targets[self.k],)


class EvaluationBatches(Dataset[TaskBatch]):
    """Samples in order, so many at a time.

    Args:
        samples: to report on.
        batch_size: of the metrics that are means over batches, part of their definition.
    """

    def __init__(self, samples: Samples, batch_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __getitem__(self, batch: int) -> TaskBatch:
        rows = range(len(self.samples))[batch * self.batch_size : (batch + 1) * self.batch_size]
        x, targets = default_collate([self.samples[row] for row in rows])
        return TaskBatch(x, tuple(targets))
