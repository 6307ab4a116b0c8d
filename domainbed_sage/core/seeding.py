"""Every random number of a run is a function of the run's seed and a counter, never of what was drawn before."""

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def seed_hash(*args: Any) -> int:
    """DomainBed's hash of its arguments to a seed in [0, 2^31).

    Source: DomainBed `lib/misc.py`, `seed_hash`: md5 of the printed tuple of arguments, modulo 2^31.
    """
    return int(hashlib.md5(str(args).encode()).hexdigest(), 16) % 2**31


def step_seed(seed: int, stream: str, step: int) -> int:
    """Seed of one random stream ("batch", "update", …) at one step of the run with this seed, in [0, 2^31)."""
    return seed_hash(seed, stream, step)


def generator(seed: int, stream: str, *counters: int) -> "np.random.Generator":
    """NumPy generator for one stream at the given counters; equal arguments give equal draws on every machine."""
    import numpy as np

    digest = hashlib.sha256(repr((seed, stream, *counters)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
