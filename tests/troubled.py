"""A plugin for the tests: algorithms in trouble, as long as a file beside this one says so."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

from domainbed_sage.algorithms import algorithms, register
from domainbed_sage.core.errors import NoSpace
from domainbed_sage.training.ownership import Fenced

ERM = algorithms["ERM"]
SAGE = algorithms["SAGE"]

HERE = Path(__file__).parent


@register("Dies")
class Dies(SAGE):
    """Its process is killed at step 4, the first time."""

    def update(self, batch):
        if self.step == 4 and not (HERE / "died").exists():
            (HERE / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(batch)


@register("Fails")
class Fails(ERM):
    """Raises an error at step 1 unless the file `mended` exists."""

    def update(self, batch):
        if self.step == 1 and not (HERE / "mended").exists():
            raise ZeroDivisionError("the plugin's own mistake")
        return super().update(batch)


@register("Slow")
class Slow(SAGE):
    """Takes its time unless the file `hurry` exists."""

    def update(self, batch):
        if not (HERE / "hurry").exists():
            time.sleep(0.1)
        return super().update(batch)


@register("Forks")
class Forks(ERM):
    """Reports how the loader processes of its run are started."""

    def update(self, batch):
        method = multiprocessing.get_start_method()
        assert method == "fork", f"loader processes would be started by {method}, and import torch anew each"
        return super().update(batch)


@register("Ghost")
class Ghost(ERM):
    """Its folder belongs to a later start of its job."""

    def update(self, batch):
        raise Fenced("the folder belongs to process 7 on elsewhere")


@register("FillsTheDisk")
class FillsTheDisk(ERM):
    """Finds no space."""

    def update(self, batch):
        raise NoSpace("No space is left for checkpoint.pt.")


@register("Lingers")
class Lingers(ERM):
    """Leaves a thread that never ends, and so a process."""

    def update(self, batch):
        threading.Thread(target=threading.Event().wait).start()
        return super().update(batch)


if (HERE / "unfit").exists() and multiprocessing.parent_process() is not None:
    raise ZeroDivisionError("only in a worker process")
