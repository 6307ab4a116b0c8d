"""A claim of a paper, what this suite computed about it, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal[
    "follows",
    "only if rounded otherwise",
    "cannot follow",
    "holds",
    "holds in part",
    "does not hold",
]


@dataclass(frozen=True)
class Finding:
    """One claim and its check.

    Attributes:
        where: its place in the paper, e.g. ``Table 2, IMTL-G, NYU-v2``.
        claim: what is claimed, in a few neutral words.
        computed: what was computed, with its numbers, in a sentence.
        verdict: whether the claim follows from the numbers printed (the first three), or holds (the others).
        how: the computation, in a sentence that lets a reader repeat it.
        numbers: the numbers of `computed` at full precision, by name.
    """

    where: str
    claim: str
    computed: str
    verdict: Verdict
    how: str
    numbers: Mapping[str, float] = field(default_factory=dict)
