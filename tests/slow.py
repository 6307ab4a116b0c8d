"""Algorithms that take their time, for tests that disturb a run while it runs; the weights know nothing of it."""

import os
import time

from domainbed_sage.algorithms import algorithms, register


def _slow(base):
    class Slow(base):
        def update(self, batch):
            time.sleep(float(os.environ.get("SLOW_S", "0")))
            return super().update(batch)

    Slow.__name__ = f"Slow{base.__name__}"
    return Slow


SlowERM = register("SlowERM")(_slow(algorithms["ERM"]))
SlowSAGE = register("SlowSAGE")(_slow(algorithms["SAGE"]))
