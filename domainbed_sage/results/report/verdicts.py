"""What the comparison says in words, and how the rows rank."""

from domainbed_sage.results.compare import Comparison
from domainbed_sage.results.report.sections import Data, Unavailable
from domainbed_sage.results.tables import Table


def verdict(table: Table, against: Comparison | None, declared: Comparison | None) -> Data:
    """Sentences on the declared comparisons; where none was declared, on the row of the highest average."""
    if against is None:
        raise Unavailable("There is nothing to compare: only one row has results.")
    return {"sentences": [str(against.caption)], "notes": list(against.notes)}


def ranks(table: Table, against: Comparison | None) -> Data:
    """Mean rank of every row over the datasets, and its wins, ties and losses against the reference."""
    raise Unavailable("In work.")
