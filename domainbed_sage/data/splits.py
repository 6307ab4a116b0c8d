"""DomainBed's seeded hold-out split of one environment, and a check that no half is empty."""

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from domainbed_sage.core.errors import raise_all
from domainbed_sage.core.seeding import seed_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Sample indices of one environment: `in_` to train on (or to test on), `out` held out for selection."""

    in_: np.ndarray
    out: np.ndarray

    def indices(self, split: str) -> np.ndarray:
        """The indices of "in" or "out"."""
        return {"in": self.in_, "out": self.out}[split]


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


def check_sizes(
    names: Sequence[str], splits: Sequence[Split], test_envs: Collection[int], holdout_fraction: float
) -> None:
    """Make sure that no half that a run trains on, selects by or is evaluated on is empty.

    Args:
        names: of the environments.
        splits: of the environments, without the images that are left out.
        test_envs: indices of the held-out environments.
        holdout_fraction: share of the out splits.

    Raises:
        UserError: one is; names each such environment and its size. The out split of a held-out environment, which only
            oracle selection reads, is worth a warning.
    """
    mistakes = []
    for i, (name, found) in enumerate(zip(names, splits, strict=True)):
        held_out, size = i in test_envs, len(found.in_) + len(found.out)
        facts = f"{name} has {_images(size)}, of which holdout_fraction {holdout_fraction} puts"
        if not len(found.in_):
            mistakes.append(f"{facts} none into the in split, to {'test' if held_out else 'train'} on")
        if not len(found.out) and held_out:
            log.warning("Environment %s none into the out split: oracle selection has nothing to select by.", facts)
        elif not len(found.out):
            mistakes.append(
                f"{facts} none into the out split, so that models could not be selected; it takes "
                f"{_images(math.ceil(1 / holdout_fraction))}, or a larger holdout_fraction"
            )
    raise_all(mistakes, "the sizes of the environments")


def _images(n: int) -> str:
    return f"{n} image{'' if n == 1 else 's'}"
