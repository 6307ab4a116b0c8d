"""The first check of a lab: zero-shot accuracies beside published ones, and what to look at where they differ.

A zero-shot classifier trains nothing, so its accuracy is a fact about weights, prompts, transforms and images. If one
of them is not what the published numbers were made with, it shows here within minutes, and not after a sweep.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import render
from domainbed_sage.results.records import RunRecord

ALGORITHM = "ZeroShot"
TOLERANCE = 1.0  # points; implementations of CLIP's preprocessing differ by a few tenths
OUT_SHARE = 0.2


@dataclass(frozen=True)
class Reference:
    """A published zero-shot accuracy.

    Attributes:
        accuracy: mean over the environments, each evaluated as a whole; percent.
        classes: number of classes.
        variant: the population it is of, where there are several.
    """

    accuracy: float
    classes: int
    variant: str = ""


# CLIP ViT-B/16 by OpenAI with «a photo of a {}.»: DISAM, ICLR 2024, Table 2; whole target domains; average 70.2.
PUBLISHED: Mapping[str, Reference] = MappingProxyType(
    {
        "PACS": Reference(96.2, 7),
        "VLCS": Reference(81.7, 5),
        "OfficeHome": Reference(82.0, 65),
        "TerraIncognita": Reference(33.4, 10, "24788"),
        "DomainNet": Reference(57.5, 345),
    }
)

# What the published numbers were made with, by hyperparameter.
EXPECTED: Mapping[str, Any] = MappingProxyType(
    {
        "weights": "openai",
        "activation": "auto",
        "head": "zero_shot",
        "template": "a photo of a {}.",
        "normalize_features": True,
        "normalization": "clip",
        "resize": "crop",
        "interpolation": "bicubic",
    }
)


@dataclass(frozen=True)
class Verdict:
    """One dataset's accuracy beside the published one, in percent, and what to look at; nothing where they agree."""

    dataset: str
    measured: float
    published: float
    advice: tuple[str, ...]


def check(
    records: Iterable[RunRecord],
    references: Mapping[str, Reference] = PUBLISHED,
    expected: Mapping[str, Any] = EXPECTED,
) -> list[Verdict]:
    """Judge the zero-shot runs among the records, dataset by dataset, in the order of the references.

    Args:
        records: runs of a sweep such as ``sweeps/zero_shot.yaml``; others are left out.
        references: the published accuracies.
        expected: the hyperparameters that they were made with.
    """
    runs: dict[str, list[RunRecord]] = {}
    for run in records:
        if run.algorithm == ALGORITHM and run.single and run.dataset in references:
            runs.setdefault(run.dataset, []).append(run)
    measured = {name: whole(runs[name]) for name in references if name in runs}
    low = {name for name, accuracy in measured.items() if _by_chance(accuracy, references[name])}
    return [
        Verdict(name, accuracy, references[name].accuracy, _advice(name, accuracy, runs, references, expected, low))
        for name, accuracy in measured.items()
    ]


def whole(runs: Sequence[RunRecord]) -> float:
    """Accuracy on whole environments in percent, averaged over the held-out ones; in and out split by their shares."""
    accuracies = []
    for run in runs:
        env, share = run.test_envs[0], run.holdout_fraction or OUT_SHARE
        accuracies.append((1 - share) * run.in_acc[-1, env] + share * run.out_acc[-1, env])
    return float(100 * np.mean(accuracies))


def _by_chance(accuracy: float, reference: Reference) -> bool:
    chance = 100 / reference.classes
    return accuracy <= chance + (reference.accuracy - chance) / 4


def _advice(
    name: str,
    accuracy: float,
    runs: Mapping[str, Sequence[RunRecord]],
    references: Mapping[str, Reference],
    expected: Mapping[str, Any],
    low: set[str],
) -> tuple[str, ...]:
    reference, run = references[name], runs[name][0]
    if abs(accuracy - reference.accuracy) <= TOLERANCE:
        return ()
    advice = [*_other_settings(run, expected)]
    if reference.variant and run.variant != reference.variant:
        advice.append(
            f"its population is {run.variant or 'not stated'}; the published number is of {reference.variant} images"
        )
    if name in low and low == set(runs):
        advice.append(
            "every dataset is near chance: the weights are not the expected ones, or not loaded "
            "(`domainbed-sage weights check`), or the head is random instead of text features"
        )
    elif name in low:
        advice.append(
            "near chance, while other datasets are not: its labels are in another order than its class names, or the "
            "names are codes (see CLASSES.json in the README; `domainbed-sage data check`)"
        )
    elif accuracy > reference.accuracy:
        advice.append("higher than published: images or classes are missing, or something was trained (steps > 1)")
    elif not advice:
        advice.append(
            "lower by a little: look at the activation (QuickGELU for OpenAI's weights), mean and deviation of the "
            "images, resizing and interpolation; then at the images themselves (`domainbed-sage data check`)"
        )
    return tuple(advice)


def _other_settings(run: RunRecord, expected: Mapping[str, Any]) -> Iterable[str]:
    found = strict_json.loads(run.hparams) or {}
    for name, value in expected.items():
        if name in found and found[name] != value:
            yield f"{name} is {found[name]!r}, and the published numbers were made with {value!r}"


def text(verdicts: Sequence[Verdict]) -> str:
    """A table and one paragraph for every dataset that is off.

    Raises:
        UserError: there is nothing to judge.
    """
    if not verdicts:
        raise UserError(
            f"There are no zero-shot runs to compare. Run sweeps/zero_shot.yaml, whose algorithm is {ALGORITHM}, first."
        )
    rows = [
        (v.dataset, f"{v.measured:.1f}", f"{v.published:.1f}", f"{v.measured - v.published:+.1f}", _word(v))
        for v in verdicts
    ]
    columns = ["Dataset", "ours", "published", "diff", "verdict"]
    grid = render.text_grid(pd.DataFrame(rows, columns=columns).set_index("Dataset"))
    off = [f"{v.dataset}: {'; '.join(v.advice)}." for v in verdicts if v.advice]
    closing = "Weights, prompts, transforms and images are those of the published numbers, as far as accuracy can tell."
    return "\n\n".join([f"-------- Zero-shot accuracy on whole environments\n{grid}", *(off or [closing])])


def _word(verdict: Verdict) -> str:
    return "OFF" if verdict.advice else "agrees"
