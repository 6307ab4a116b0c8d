"""What the comparison says in words, and how the rows rank."""

import math
from collections.abc import Sequence
from dataclasses import replace

from domainbed_sage.results.compare import Comparison
from domainbed_sage.results.report.sections import Data, Unavailable

UNDECLARED = (
    "No comparison was declared (--compare). This row is named because its average is the highest beside the "
    "reference's{adjusted}: the sentence describes these results. A claim needs a comparison that was declared before "
    "they were seen."
)
ADJUSTED = ", and its p-values are adjusted for all {n} rows (Holm)"


def verdict(best: Sequence[str], against: Comparison | None, declared: Comparison | None) -> Data:
    """Sentences on the declared comparisons; where none was declared, on the best row beside the reference.

    Args:
        best: the rows with an average, the highest first.
        against: every other row compared with the reference.
        declared: the declared comparisons.
    """
    if against is None:
        raise Unavailable("There is nothing to compare: only one row has results.")
    if declared is not None:
        return {"sentences": declared.sentence().splitlines(), "notes": []}
    others = [name for name in best if name != against.reference]
    if not others:
        raise Unavailable("No comparison was declared (--compare), and no average is complete.")
    highest = replace(against, frame=against.frame.loc[others[:1]])
    answered = highest.frame["these_p_holm"].notna().any() and len(against.frame) > 1
    note = UNDECLARED.format(adjusted=ADJUSTED.format(n=len(against.frame)) if answered else "")
    return {"sentences": highest.sentence().splitlines(), "notes": [note]}


def ranks(rows: Sequence[str], against: Comparison | None) -> Data:
    """Mean rank of every row over the datasets, and its wins, ties and losses against the reference."""
    if against is None:
        raise Unavailable("There is nothing to rank: only one row has results.")
    counts = against.frame[["wins", "ties", "losses"]].to_dict("index")
    none = dict.fromkeys(("wins", "ties", "losses"))
    mean_ranks = against.ranks.to_dict()
    shown = [{"method": name, "rank": mean_ranks.get(name, math.nan), **counts.get(name, none)} for name in rows]
    shown.sort(key=lambda row: (math.isnan(row["rank"]), row["rank"]))
    return {"reference": against.reference, "ranked": len(mean_ranks), "rows": shown}
