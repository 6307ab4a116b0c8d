"""DomainBed's seeded hold-out split of one environment."""

from dataclasses import dataclass

import numpy as np

from domainbed_sage.core.seeding import seed_hash


@dataclass(frozen=True)
class Split:
    """Sample indices of one environment: `in_` to train on (or to test on), `out` held out for selection."""

    in_: np.ndarray
    out: np.ndarray

    def half(self, name: str) -> np.ndarray:
        """The indices of "in" or "out"."""
        return {"in": self.in_, "out": self.out}[name]


def split(n: int, env_index: int, trial_seed: int, holdout_fraction: float = 0.2) -> Split:
    """Split n samples exactly as DomainBed does.

    The out split is the first ⌊fraction · n⌋ of a shuffle of range(n) by NumPy's legacy `RandomState`, seeded with
    ``seed_hash(trial_seed, env_index)``; the in split is the rest, in shuffled order.

    Source: DomainBed `scripts/train.py` and `lib/misc.py`, `split_dataset`.
    """
    keys = np.arange(n)
    np.random.RandomState(seed_hash(trial_seed, env_index)).shuffle(keys)
    size = int(n * holdout_fraction)
    return Split(in_=keys[size:], out=keys[:size])
