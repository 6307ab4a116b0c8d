"""A part of a results folder: some rows of its table, and some datasets."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from domainbed_sage.core.errors import UserError, bullets, known, near
from domainbed_sage.results.loaded import Loaded
from domainbed_sage.results.looks import order


def only(loaded: Loaded, labels: Sequence[str] | None = None, datasets: Sequence[str] | None = None) -> Loaded:
    """Those runs and planned results that are of these rows and datasets; the footer of a table then says so.

    What is missing of them stays missing: without a plan, it is judged by all rows.

    Args:
        loaded: what a folder holds.
        labels: rows of its table; None for all.
        datasets: None for all.

    Raises:
        UserError: a row or dataset is not there, or no run or planned result is of these.
    """
    if labels is None and datasets is None:
        return loaded
    expected = loaded.expected()
    rows = order(expected, loaded.records)
    sets = list(dict.fromkeys([key[0] for key in expected] + [run.dataset for run in loaded.records]))
    mistakes = [*_unknown("row", labels or (), rows), *_unknown("dataset", datasets or (), sets)]
    if mistakes:
        raise UserError(mistakes[0] if len(mistakes) == 1 else f"Not found:\n{bullets(mistakes)}", mistakes)
    wanted = set(rows if labels is None else labels), set(sets if datasets is None else datasets)
    keys = tuple(key for key in expected if key[1] in wanted[0] and key[0] in wanted[1])
    runs = tuple(run for run in loaded.records if run.label in wanted[0] and run.dataset in wanted[1])
    if not keys and not runs:
        raise UserError(f"There is no run of {', '.join(labels or rows)} on {', '.join(datasets or sets)}.")
    chosen = [f"rows {', '.join(_there(rows, labels))}"] if labels is not None else []
    chosen += [f"datasets {', '.join(_there(sets, datasets))}"] if datasets is not None else []
    remarks = (*loaded.remarks, f"A part of the results: only {'; only '.join(chosen)}.")
    return replace(loaded, records=runs, planned=keys, remarks=remarks)


def _there(names: Iterable[str], chosen: Sequence[str]) -> list[str]:
    return [name for name in names if name in chosen]


def _unknown(what: str, names: Iterable[str], there: Sequence[str]) -> list[str]:
    return [
        f"There is no {what} {name!r} in these results.{near(name, there)} {known(there)}."
        for name in dict.fromkeys(names)
        if name not in there
    ]
