"""A plugin for the tests: a dataset for each way in which a run can die, most of them in its loader processes."""

import multiprocessing
import os
import resource
import signal
import tempfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import get_worker_info

from domainbed_sage.algorithms import algorithms, register
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.environment import ArrayEnvironment, MultiDomainDataset
from domainbed_sage.data.specs import DatasetSpec, datasets
from domainbed_sage.training import evaluate

ERM = algorithms["ERM"]

ENVIRONMENTS = ("first", "second")
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
SHARE = torch.UntypedStorage._share_fd_cpu_


class OddError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.lock = threading.Lock()


class OddUserError(UserError):
    def __init__(self, first, second, third):
        super().__init__(f"{first}, {second} and {third}")


def damaged():
    raise UserError("dog.jpg cannot be decoded as an image. Restore it.")


def damaged_in_evaluation():
    if isinstance(get_worker_info().dataset.dataset, evaluate._Images):
        damaged()


def odd():
    raise OddError("this", "that")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def full(storage):
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_7>: No space left on device (28)")


class Deadly(ArrayEnvironment):
    """Something happens to the loader process that asks for an image."""

    def __init__(self, name, happen):
        labels = np.arange(20) % 2
        super().__init__(name, np.zeros((20, 32, 32, 3), np.uint8), labels, [f"{i}.png" for i in range(20)])
        self.happen = happen

    def image(self, index):
        if get_worker_info() is not None:
            self.happen()
        return super().image(index)


def load(name, _, *, happen=lambda: None, share=SHARE, files=None, temporary=None):
    """Prepare a death in this process, which may have seen another one before."""
    global fate
    fate = name  # type: ignore[name-defined]
    torch.UntypedStorage._share_fd_cpu_ = share
    soft = SOFT if files is None else len(list(Path("/proc/self/fd").iterdir())) + files
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, HARD))
    tempfile.tempdir = temporary and str(Path(tempfile.mkdtemp()) / temporary)
    Path(tempfile.gettempdir()).mkdir(exist_ok=True)
    multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    return MultiDomainDataset(name, ("even", "odd"), tuple(Deadly(env, happen) for env in ENVIRONMENTS))


for death, how in {
    "Step": {},
    "OddStep": {},
    "Damaged": {"happen": damaged},
    "Evaluation": {"happen": damaged_in_evaluation},
    "Odd": {"happen": odd},
    "Killed": {"happen": killed},
    "Full": {"share": full},
    "Files": {"files": 5},
    "Temporary": {"temporary": "scratch" * 20},
    "Alive": {},
}.items():
    datasets.register(death)(DatasetSpec(death, ENVIRONMENTS, 2, partial(load, death, **how), model="small_cnn"))


@register("Mortal")
class Mortal(ERM):
    """Dies in its third step, if that is its fate."""

    def update(self, batch):
        if self.step == 2 and fate == "Step":  # type: ignore[name-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.step == 2 and fate == "OddStep":  # type: ignore[name-defined]
            raise OddUserError("one", "two", "three")
        return super().update(batch)
