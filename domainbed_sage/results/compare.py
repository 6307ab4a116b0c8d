"""Compare methods with a reference, paired, and quantify how certain the difference is."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from domainbed_sage.core.errors import UserError, known
from domainbed_sage.results import claims, fairness, footer, html
from domainbed_sage.results.image_sampling import Chosen, Images, Triple
from domainbed_sage.results.intervals import TTest, error_of_like_these, error_of_these, t_test
from domainbed_sage.results.paired import Paired, Pairs
from domainbed_sage.results.records import IntArray
from domainbed_sage.results.tables import AVERAGE, Table

NO_SPREAD = 1e-9  # points; smaller spreads are rounding errors
QUESTIONS = ("these", "like")


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Differences of methods to a reference, in points of held-out accuracy.

    A − B is taken within each (dataset, held-out environment, trial) that both have, because the trials' splits are
    shared by all methods. D[d, t] is its mean over the environments of dataset d. The difference is the mean of D.

    *These datasets*: would other seeds and splits give the same sign? With T trials of n datasets, the standard error
    is sqrt(Σ_d var(D[d], ddof=1) / T) / n, and t has n (T − 1) degrees of freedom. It needs two trials.

    *Datasets like these*: would other datasets give the same sign? It treats these as a random sample of them: a
    one-sample t-test of the n dataset means of D. It needs three datasets.

    Neither accounts for the random choice of test images. *Other test images* does, and for nothing else: where all
    compared runs have kept which images they classify correctly, the images of every environment are drawn anew, see
    `image_sampling`. It is an answer of its own, and not added to the two.

    Attributes:
        frame: a row for each method: difference, pairs (used), pairs_total (of either method), datasets, trials; for
            each question, ``these_`` and ``like_``, se, df, t, p, low, high (95 % interval) and p_holm (adjusted for
            all methods); wins, ties, losses over (dataset, environment), a description and not a test; ``images_``
            se, low, high of other test images.
        reference: label of the row that is compared with.
        selection: title of the model selection method.
        notes: what is missing and why, and in what the rows differ beside the method.
        ranks: mean rank over the datasets of each method of the table that is complete on all of them, 1 is best,
            equal averages share their ranks; a description and not a test. Empty if there are fewer than two.
        unanswered: why a question has no answer, by method and question.
    """

    frame: pd.DataFrame
    reference: str
    selection: str
    notes: tuple[str, ...]
    ranks: "pd.Series[float]" = field(default_factory=lambda: pd.Series(dtype=float))
    unanswered: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        """Explanation of the numbers."""
        return claims.caption(self)

    def strings(self) -> pd.DataFrame:
        """The rows as printed."""
        return claims.strings(self)

    def sentence(self) -> str:
        """What the numbers say, to copy into a paper: a line for each method."""
        return claims.sentence(self)

    def to_text(self) -> str:
        """For a terminal, 80 columns wide."""
        return claims.text(self)

    def to_markdown(self) -> str:
        """A pipe table, and the notes."""
        return claims.markdown(self)

    def to_latex(self) -> str:
        """A `table` environment with booktabs, and the notes as paragraphs."""
        return claims.latex(self)

    def to_csv(self) -> str:
        """`frame` at full precision, and the mean ranks."""
        return claims.csv(self)

    def to_json(self) -> str:
        """Everything at full precision; what cannot be had is null."""
        return claims.json(self)

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return html.cells(self.strings()) + html.sentences([self.caption, *self.notes])


def compare(table: Table, reference: str, methods: Sequence[str], folders: Sequence[Path] = ()) -> Comparison:
    """Compare rows of a table with one of them; see `Comparison`.

    Args:
        table: the benchmark's table.
        reference: label of the row to compare with.
        methods: labels of the rows to compare.
        folders: results folders to look in for the correct images of the runs.

    Raises:
        UserError: a method or the reference is not in the table, or they are the same.
    """
    methods = _checked(table, reference, [methods] if isinstance(methods, str) else methods)
    pairs, chosen = Pairs(table), _chosen(table)
    images = Images(folders)
    runs = {name: [run for run in table.records if run.label == name] for name in (reference, *methods)}
    conditions = {name: fairness.conditions(own) for name, own in runs.items()}
    rows: list[dict[str, float | str]] = []
    notes: list[str] = []
    unanswered: dict[tuple[str, str], str] = {}
    for method in methods:
        row, remarks, whys = _compared(pairs.of(method, reference))
        drawn, no_images = images.interval(chosen[method], chosen[reference])
        over_images = {f"images_{name}": value for name, value in drawn._asdict().items()}
        rows.append({"method": method, "reference": reference} | row | over_images)
        unanswered |= {(method, question): why for question, why in whys.items() if why}
        remarks += [f"no answer for {claims.TITLES[question]}: {why}." for question, why in whys.items() if why]
        remarks += [f"no interval for other test images: {no_images}."] if no_images else []
        remarks += fairness.uneven(conditions[method], conditions[reference], reference)
        notes += [f"{method}: {remark}" for remark in remarks]
    notes += footer.endings(run for own in runs.values() for run in own)
    frame = pd.DataFrame(rows).set_index("method")
    for question in QUESTIONS:
        p = f"{question}_p"
        frame.insert(list(frame.columns).index(p) + 1, f"{p}_holm", holm(frame[p].to_list()))
    return Comparison(frame, reference, table.method.title, tuple(notes), _ranks(table), unanswered)


def _checked(table: Table, reference: str, methods: Sequence[str]) -> list[str]:
    there = [str(name) for name in table.results["algorithm"].unique()]
    unknown = [name for name in (reference, *methods) if name not in there]
    if unknown:
        raise UserError(f"There is no result of {', '.join(dict.fromkeys(unknown))} to compare. {known(there)}.")
    if not methods or reference in methods:
        raise UserError(f"Nothing is compared with {reference}: methods is {list(methods)}. {known(there)}.")
    return list(dict.fromkeys(methods))


def _chosen(table: Table) -> dict[str, dict[Triple, Chosen]]:
    """What is behind each number, by row."""
    columns = table.results[["algorithm", "dataset", "env", "trial_seed", "run", "step", "test_acc"]]
    found: defaultdict[str, dict[Triple, Chosen]] = defaultdict(dict)
    for method, dataset, env, trial, *number in columns.itertuples(index=False, name=None):
        found[method][dataset, env, trial] = Chosen(*number)
    return found


def _compared(paired: Paired) -> tuple[dict[str, float], list[str], dict[str, str]]:
    """A row of the frame, remarks on it, and why questions have no answer."""
    by_trial = pd.DataFrame(paired.by_trial, paired.datasets, paired.trials)  # D, [datasets, trials]
    by_trial = by_trial.dropna(how="all").dropna(axis=1, how="all")
    by_dataset = by_trial.mean(axis=1)
    cells = paired.by_environment
    these, no_these = of_these(by_trial)
    like, no_like = of_like_these(by_dataset)
    row = {
        "difference": float(by_dataset.mean()),
        "pairs": int(paired.is_common.sum()),
        "pairs_total": len(paired.points),
        "datasets": len(by_dataset),
        "trials": by_trial.shape[1],
        **{f"these_{name}": value for name, value in these._asdict().items()},
        **{f"like_{name}": value for name, value in like._asdict().items()},
        "wins": int((cells > NO_SPREAD).sum()),
        "ties": int((np.abs(cells) <= NO_SPREAD).sum()),
        "losses": int((cells < -NO_SPREAD).sum()),
    }
    return row, list(_left_out(paired)), {"these": no_these, "like": no_like}


def _left_out(paired: Paired) -> Iterator[str]:
    """State what a comparison leaves out."""
    common, total = paired.places[paired.is_common], len(paired.places)
    if len(common) < total:
        yield f"compared on the {len(common)} of {total} (dataset, environment, trial) triples that both have."
    there, left = (np.unique(places[:, 0]) for places in (paired.places, common))
    if without := [paired.datasets[at] for at in there if at not in left]:
        yield f"nothing is left of {', '.join(without)}."
    uneven = [paired.datasets[at] for at in left if _is_uneven(common[common[:, 0] == at])]
    if uneven:
        yield f"the trials of {', '.join(uneven)} average over different environments."


def _is_uneven(places: IntArray) -> bool:
    """Whether trials of a dataset have different environments; `places` as in `Paired`, without repetitions."""
    trials, envs = (len(np.unique(places[:, column])) for column in (1, 2))
    return len(places) < trials * envs


def of_these(differences: pd.DataFrame) -> tuple[TTest, str]:
    """Test whether the mean of these datasets' differences, [datasets, trials], is 0; or say why that is impossible."""
    trials = differences.count(axis=1)
    if trials.empty:
        return TTest(), "there is nothing to compare"
    if trials.min() < 2:
        return TTest(), f"it takes two trials, and {trials.idxmin()} has {trials.min()}"
    error = error_of_these(differences)
    if error.se < NO_SPREAD:
        return TTest(), "the differences are the same in every trial"
    return t_test(float(differences.mean(axis=1).mean()), error), ""


def of_like_these(differences: "pd.Series[float]") -> tuple[TTest, str]:
    """Test whether the mean over datasets like these, [datasets], is 0; or say why that is impossible."""
    if len(differences) < 3:
        return (
            TTest(),
            f"it takes three datasets, and there {'is' if len(differences) == 1 else 'are'} {len(differences)}",
        )
    if np.ptp(differences) < NO_SPREAD:
        return TTest(), "the differences are the same on every dataset"
    return t_test(float(differences.mean()), error_of_like_these(differences)), ""


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for all of them by Holm's method; one that is NaN stays so, and counts among them."""
    adjusted, highest = [math.nan] * len(p), 0.0
    for rank, at in enumerate(np.argsort(p)):  # NaN last
        if not math.isnan(p[at]):
            highest = max(highest, min(1.0, (len(p) - rank) * p[at]))
            adjusted[at] = highest
    return adjusted


def mean_ranks(means: pd.DataFrame) -> "pd.Series[float]":
    """Mean over the columns of each row's rank in them: 1 is the largest number, equal ones share their mean rank."""
    return (means / NO_SPREAD).round().rank(ascending=False, method="average").mean(axis=1)


def _ranks(table: Table) -> "pd.Series[float]":
    cells = table.averages.cells.drop(columns=AVERAGE)
    means = table.averages.means[cells.columns][cells.map(lambda cell: cell.complete).all(axis=1)]
    return mean_ranks(means) if len(means) > 1 else pd.Series(dtype=float)
