"""What the printed marks of Tables 1 and 2 say, and whether the numbers say so: bold, underlined, plus and minus."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from domainbed_sage.paper.findings import Finding, Verdict
from domainbed_sage.results.printed_tasks import COLUMNS, STL, rows

BOLD, UNDERLINE = "bold", "underline"
SIGNS = ("+", "-", "±")
OURS = "SAGE-"  # what the paper puts before the name of a solver that it adds its method to
DELTA_M = "dm"
DATASETS = {"nyu": "NYUv2", "cs": "Cityscapes"}
COPY = (
    "The marks are those of a text copy of the paper, which may show an underlined number as a bold one: bold on a "
    "second best, or underlined on a best, counts as right in part."
)
HOW_PLACES = (
    f"The best and second best printed number of each column among all rows but {STL}; of equal ones all count. {COPY}"
)
HOW_ROWS = f"The best printed number of each column; of equal ones all count. {COPY}"
HOW_SIGNS = (
    "Each printed number of a SAGE row minus that of the row of its base solver, and the direction of the column."
)


@dataclass(frozen=True)
class Column:
    """A printed column: its numbers by row, in the direction in which more is better."""

    numbers: Mapping[str, float]
    printed: Mapping[str, str]

    def places(self) -> tuple[set[str], set[str]]:
        """The rows with the best number, and those with the second best; equal numbers share a place."""
        values = sorted(set(self.numbers.values()), reverse=True)
        return tuple(  # type: ignore[return-value]
            {row for row, value in self.numbers.items() if [value] == values[at : at + 1]} for at in (0, 1)
        )

    def named(self, names: Sequence[str] | set[str]) -> str:
        """Rows with their printed numbers, in the table's order."""
        there = [f"{row} {self.printed[row]}" for row in self.numbers if row in names]
        return " and ".join(there) or "none"


def marked(table: str) -> dict[tuple[str, str], set[str]]:
    """The marks of each row and column of a table that has some."""
    found: dict[tuple[str, str], set[str]] = {}
    for mark in rows("marks"):
        if mark["table"] == table:
            found.setdefault((mark["row"], mark["column"]), set()).add(mark["mark"])
    return found


def higher_is_better(column: str) -> bool:
    """The direction of a column of Table 2, e.g. ``nyu_miou``."""
    name = column.split("_")[1]
    return name != DELTA_M and COLUMNS[name][1]


def column(printed: Sequence[Mapping[str, str]], name: str, key: str, more: bool) -> Column:
    """A column without the rows that have no number in it."""
    own = {row[key]: row[name] for row in printed if row[name]}
    return Column({row: float(text) * (1 if more else -1) for row, text in own.items()}, own)


def findings() -> Iterator[Finding]:
    """One finding for each row of Table 1 with bold numbers, for each marked column of Table 2, and for its signs."""
    yield from _of_rows(rows("table1"), marked("table1"))
    printed, marks = [row for row in rows("table2") if row["method"] != STL], marked("table2")
    for name in [name for name in printed[0] if not name.startswith("method")]:
        own = {row: here for (row, of), here in marks.items() if of == name}
        bold, underlined = ([row for row, here in own.items() if mark in here] for mark in (BOLD, UNDERLINE))
        if bold or underlined:
            yield _of_column(name, column(printed, name, "method", higher_is_better(name)), bold, underlined)
    yield _of_signs(printed, marks)


def _of_rows(printed: Sequence[Mapping[str, str]], marks: Mapping[tuple[str, str], set[str]]) -> Iterator[Finding]:
    for row in dict.fromkeys(row for row, _ in marks):
        bold = [name for of, name in marks if of == row]
        columns = {name: column(printed, name, "algorithm", True) for name in bold}
        best = {name: own.named(own.places()[0]) for name, own in columns.items()}
        wrong = [name for name, own in columns.items() if row not in own.places()[0]]
        said = "; ".join(f"{_plain(name)}: best is {best[name]}, not {columns[name].named([row])}" for name in wrong)
        verdict: Verdict = "holds" if not wrong else "holds in part" if len(wrong) < len(bold) else "does not hold"
        yield Finding(
            f"Marks of Table 1, {row}",
            f"in bold: {', '.join(columns[name].printed[row] for name in bold)}",
            said or "all are best of their column",
            verdict,
            HOW_ROWS,
            {"bold": len(bold), "not the best": len(wrong)},
        )


def _plain(name: str) -> str:
    return "average" if name.startswith("avg") else name


def judged(own: Column, bold: Sequence[str], underlined: Sequence[str]) -> Verdict:
    """Whether the marks of a column are right; see `COPY`."""
    best, second = own.places()
    if not set(bold) | set(underlined) <= best | second:
        return "does not hold"
    return "holds" if set(bold) <= best and set(underlined) <= second else "holds in part"


def _of_column(name: str, own: Column, bold: Sequence[str], underlined: Sequence[str]) -> Finding:
    best, second = own.places()
    dataset, metric = name.split("_")[:2]
    return Finding(
        f"Marks of Table 2, {DATASETS[dataset]}, {'Δm' if metric == DELTA_M else metric}",
        f"best (bold): {own.named(bold)}; second best (underlined): {own.named(underlined)}",
        f"best is {own.named(best)}, second best {own.named(second)}",
        judged(own, bold, underlined),
        HOW_PLACES,
        {"wrong": len((set(bold) | set(underlined)) - best - second)},
    )


def _of_signs(printed: Sequence[Mapping[str, str]], marks: Mapping[tuple[str, str], set[str]]) -> Finding:
    by_row = {row["method"]: row for row in printed}
    total, wrong = 0, []
    for (row, name), here in marks.items():
        for sign in here & set(SIGNS):
            gain = float(by_row[row][name]) - float(by_row[row.removeprefix(OURS)][name])
            gain *= 1 if higher_is_better(name) else -1
            total += 1
            if sign != ("+" if gain > 0 else "-" if gain < 0 else "±"):
                wrong.append(f"{row}, {name}: {sign}")
    return Finding(
        "Marks of Table 2, plus and minus signs",
        f"{total} signs say whether adding SAGE to a solver improves a column",
        f"{total - len(wrong)} of them agree with the printed columns" + (f"; not {'; '.join(wrong)}" if wrong else ""),
        "does not hold" if wrong else "holds",
        HOW_SIGNS,
        {"signs": total, "wrong": len(wrong)},
    )
