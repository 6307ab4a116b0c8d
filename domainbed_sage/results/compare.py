"""Compare methods with a reference, paired, and quantify how certain the difference is."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from domainbed_sage.core.errors import UserError, known
from domainbed_sage.results import html
from domainbed_sage.results.tables import Table

CONFIDENCE = 0.95
NO_SPREAD = 1e-9  # points; smaller spreads are rounding errors
QUESTIONS = {"these": "these datasets", "like": "datasets like these"}


class TTest(NamedTuple):
    """A two-sided t-test of a mean difference against 0, with its confidence interval; points. NaN if there is none."""

    se: float = math.nan
    df: float = math.nan
    t: float = math.nan
    p: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Differences of methods to a reference, in points of held-out accuracy.

    A − B is taken within each (dataset, held-out environment, trial) that both have, because the trials' splits are
    shared by all methods. D[d, t] is its mean over the environments of dataset d. The difference is the mean of D.

    *These datasets*: would other seeds and splits give the same sign? With T trials of n datasets, the standard error
    is sqrt(Σ_d var(D[d], ddof=1) / T) / n, and t has n (T − 1) degrees of freedom. It needs two trials.

    *Datasets like these*: would other datasets give the same sign? It treats these as a random sample of them: a
    one-sample t-test of the n dataset means of D. It needs three datasets.

    Neither accounts for the random choice of test images.

    Attributes:
        frame: a row for each method: difference, pairs (used), pairs_total (of either method), datasets, trials; for
            each question, ``these_`` and ``like_``, se, df, t, p, low, high (95 % interval) and p_holm (adjusted for
            all methods); wins, ties, losses over (dataset, environment), a description and not a test.
        reference: label of the row that is compared with.
        selection: title of the model selection method.
        notes: what is missing and why.
    """

    frame: pd.DataFrame
    reference: str
    selection: str
    notes: tuple[str, ...]

    @property
    def caption(self) -> str:
        """Explanation of the numbers."""
        return (
            f"Difference to {self.reference} in points of held-out accuracy; model selection: {self.selection}. "
            f"{CONFIDENCE:.0%} confidence intervals of each method alone; p adjusted for {len(self.frame)} "
            f"method{'s' * (len(self.frame) > 1)} (Holm). W/T/L: wins, ties, losses over held-out environments."
        )

    def strings(self) -> pd.DataFrame:
        """The rows as printed."""
        rows = {str(method): _strings(row) for method, row in self.frame.to_dict("index").items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("Method")

    def __str__(self) -> str:
        notes = [textwrap.fill(line, 80, subsequent_indent="  ") for line in (self.caption, *self.notes)]
        return "\n".join([self.strings().reset_index().to_string(index=False), *notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html.cells(self.strings()) + html.sentences([self.caption, *self.notes])


def compare(table: Table, reference: str, methods: Sequence[str]) -> Comparison:
    """Compare rows of a table with one of them; see `Comparison`.

    Raises:
        UserError: a method or the reference is not in the table, or they are the same.
    """
    methods = list(dict.fromkeys([methods] if isinstance(methods, str) else methods))
    there = [str(name) for name in table.results["algorithm"].unique()]
    unknown = [name for name in (reference, *methods) if name not in there]
    if unknown:
        raise UserError(f"There is no result of {', '.join(unknown)} to compare. {known(there)}.")
    if not methods or reference in methods:
        raise UserError(f"Nothing is compared with {reference}: methods is {methods}. {known(there)}.")
    cells = table.results.set_index(["algorithm", "dataset", "env", "trial_seed"])["test_acc"] * 100
    rows, notes = [], []
    for method in methods:
        row, remarks = _compared(cells.loc[method], cells.loc[reference])
        rows.append({"method": method, "reference": reference} | row)
        notes += [f"{method}: {remark}" for remark in remarks]
    frame = pd.DataFrame(rows).set_index("method")
    for question in QUESTIONS:
        p = f"{question}_p"
        frame.insert(list(frame.columns).index(p) + 1, f"{p}_holm", holm(frame[p].to_list()))
    return Comparison(frame, reference, table.method.title, tuple(notes))


def _compared(ours: "pd.Series[float]", theirs: "pd.Series[float]") -> tuple[dict[str, float], list[str]]:
    """A row of the frame, and remarks on it; both are accuracies in percent by dataset, environment and trial."""
    either = ours - theirs  # NaN where one of the two is not there
    differences = either.dropna()
    by_trial = differences.groupby(["dataset", "trial_seed"]).mean().unstack()  # D, [datasets, trials]
    by_dataset = by_trial.mean(axis=1)
    cells = differences.groupby(["dataset", "env"]).mean()
    these, no_these = of_these(by_trial)
    like, no_like = of_like_these(by_dataset)
    row = {
        "difference": float(by_dataset.mean()),
        "pairs": len(differences),
        "pairs_total": len(either),
        "datasets": len(by_dataset),
        "trials": by_trial.shape[1],
        **{f"these_{name}": value for name, value in these._asdict().items()},
        **{f"like_{name}": value for name, value in like._asdict().items()},
        "wins": int((cells > NO_SPREAD).sum()),
        "ties": int((cells.abs() <= NO_SPREAD).sum()),
        "losses": int((cells < -NO_SPREAD).sum()),
    }
    answers = ((QUESTIONS["these"], no_these), (QUESTIONS["like"], no_like))
    unanswered = [f"no answer for {question}: {why}." for question, why in answers if why]
    return row, [*_left_out(differences.reset_index(), either.reset_index()), *unanswered]


def _left_out(common: pd.DataFrame, either: pd.DataFrame) -> Iterator[str]:
    """State what a comparison leaves out, given a row for each triple."""
    if len(common) < len(either):
        yield f"compared on the {len(common)} of {len(either)} (dataset, environment, trial) triples that both have."
    if without := set(either["dataset"]) - set(common["dataset"]):
        yield f"nothing is left of {', '.join(sorted(without))}."
    envs = common.groupby(["dataset", "trial_seed"])["env"].agg(frozenset)
    if uneven := [str(name) for name, sets in envs.groupby("dataset") if sets.nunique() > 1]:
        yield f"the trials of {', '.join(uneven)} average over different environments."


def of_these(differences: pd.DataFrame) -> tuple[TTest, str]:
    """Test whether the mean of these datasets' differences, [datasets, trials], is 0; or say why that is impossible."""
    trials = differences.count(axis=1)
    if trials.empty:
        return TTest(), "there is nothing to compare"
    if trials.min() < 2:
        return TTest(), f"it takes two trials, and {trials.idxmin()} has {trials.min()}"
    se = math.sqrt((differences.var(axis=1, ddof=1) / trials).sum()) / len(trials)
    if se < NO_SPREAD:
        return TTest(), "the differences are the same in every trial"
    from scipy import stats

    mean, df = float(differences.mean(axis=1).mean()), int((trials - 1).sum())
    low, high = stats.t.interval(CONFIDENCE, df, mean, se)
    return TTest(se, df, mean / se, float(2 * stats.t.sf(abs(mean / se), df)), float(low), float(high)), ""


def of_like_these(differences: "pd.Series[float]") -> tuple[TTest, str]:
    """Test whether the mean over datasets like these, [datasets], is 0; or say why that is impossible."""
    if len(differences) < 3:
        return TTest(), f"it takes three datasets, and there are {len(differences)}"
    if np.ptp(differences) < NO_SPREAD:
        return TTest(), "the differences are the same on every dataset"
    from scipy import stats

    test = stats.ttest_1samp(differences, 0)
    low, high = test.confidence_interval(CONFIDENCE)
    se = float(stats.sem(differences))
    return TTest(se, float(test.df), float(test.statistic), float(test.pvalue), float(low), float(high)), ""


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for all of them by Holm's method; one that is NaN stays so, and counts among them."""
    adjusted, highest = [math.nan] * len(p), 0.0
    for rank, at in enumerate(np.argsort(p)):  # NaN last
        if not math.isnan(p[at]):
            highest = max(highest, min(1.0, (len(p) - rank) * p[at]))
            adjusted[at] = highest
    return adjusted


def _strings(row: Mapping[Any, Any]) -> dict[str, str]:
    texts = {"Difference": "-" if math.isnan(row["difference"]) else f"{row['difference']:+z.2f}"}
    for name, question in QUESTIONS.items():
        low, high, p = (row[f"{name}_{what}"] for what in ("low", "high", "p_holm"))
        text = f"[{low:+z.2f}, {high:+z.2f}] p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
        texts[question.capitalize()] = "-" if math.isnan(p) else text
    return texts | {"Pairs": str(row["pairs"]), "W/T/L": f"{row['wins']}/{row['ties']}/{row['losses']}"}
