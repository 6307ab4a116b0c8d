"""What a comparison prints: text, Markdown, LaTeX, CSV, JSON, and the sentence for a paper."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from domainbed_sage.core import strict_json
from domainbed_sage.core.files import write_atomically
from domainbed_sage.results import escape, render
from domainbed_sage.results.image_sampling import RESAMPLES, Resampled
from domainbed_sage.results.intervals import CONFIDENCE

if TYPE_CHECKING:
    from domainbed_sage.results.compare import Comparison

TITLES = {"these": "these datasets", "like": "datasets like these"}
IMAGES = "other test images"
_OF_A_QUESTION = ("se", "df", "t", "p", "p_holm", "low", "high")
_Row = Mapping[Any, Any]


def caption(comparison: "Comparison") -> str:
    """Explanation of the numbers."""
    n = len(comparison.frame)
    images = ""
    if comparison.frame["images_low"].notna().any():
        images = f" Other test images: paired bootstrap over the images of each environment, {RESAMPLES:,} resamples."
    return (
        f"Difference to {comparison.reference} in points of held-out accuracy; model selection: "
        f"{comparison.selection}. {CONFIDENCE:.0%} confidence intervals of each method alone; p adjusted for {n} "
        f"method{'s' * (n > 1)} (Holm). W/T/L: wins, ties, losses over held-out environments.{images}"
    )


def strings(comparison: "Comparison") -> pd.DataFrame:
    """A row for each method."""
    rows = {}
    for method, row in comparison.frame.to_dict("index").items():
        answers = {title.capitalize(): _answer(row, question) for question, title in TITLES.items()}
        if comparison.frame["images_low"].notna().any():
            answers[IMAGES.capitalize()] = _interval(row, "images", "+")
        counts = {"Pairs": str(row["pairs"]), "W/T/L": _record(row)}
        rows[str(method)] = {"Difference": _points(row), **answers, **counts}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("Method")


def text(comparison: "Comparison") -> str:
    """For a terminal: a block for each method, then the notes."""
    blocks = [f"-------- Comparison with {escape.printable(comparison.reference)}"]
    for method, row in comparison.frame.to_dict("index").items():
        lines = render.paragraph([f"{method}: {_points(row)} ({row['pairs']} pairs, W/T/L {_record(row)})"])
        for question, title in TITLES.items():
            line = f"  {title:<21}{_interval(row, question, '+'):<18}{_p(row, question):<11}{_t(row, question)}"
            lines.append(line.rstrip())
        if not math.isnan(row["images_low"]):
            lines.append(f"  {IMAGES:<21}{_interval(row, 'images', '+')}")
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, *render.paragraph([caption(comparison), *_below(comparison)])]) + "\n"


def markdown(comparison: "Comparison") -> str:
    """A pipe table, its caption and the notes."""
    parts = [render.markdown_grid(strings(comparison)), escape.markdown(caption(comparison))]
    return "\n\n".join([*parts, *render.markdown_list(list(_below(comparison)))]) + "\n"


def latex(comparison: "Comparison") -> str:
    """A booktabs table, with the notes below as paragraphs."""
    label = f"tab:compare:{comparison.reference}"
    parts = [render.latex_grid(strings(comparison), caption(comparison), label)]
    return render.PREAMBLE + "\n\n".join([*parts, *map(escape.latex, _below(comparison))]) + "\n"


def csv(comparison: "Comparison") -> str:
    """A row for each method, in points and at full precision."""
    frame = comparison.frame.assign(mean_rank=comparison.ranks.reindex(comparison.frame.index))
    return render.csv_text(frame.reset_index())


def json(comparison: "Comparison") -> str:
    """Everything, at full precision; points."""
    rows = []
    for method, row in comparison.frame.to_dict("index").items():
        flat = {"method": str(method)} | {str(name): value for name, value in row.items()}
        questions = {}
        for question in TITLES:
            answer = {name: flat.pop(f"{question}_{name}") for name in _OF_A_QUESTION}
            questions[question] = answer | {"unanswered": comparison.unanswered.get((str(method), question))}
        questions["images"] = {name: flat.pop(f"images_{name}") for name in Resampled._fields}
        rows.append(flat | questions)
    everything = {
        "reference": comparison.reference,
        "selection": comparison.selection,
        "unit": "points",
        "confidence": CONFIDENCE,
        "comparisons": rows,
        "mean_ranks": comparison.ranks.to_dict(),
        "notes": comparison.notes,
        "sentence": sentence(comparison),
    }
    return strict_json.dumps(everything) + "\n"


def sentence(comparison: "Comparison") -> str:
    """A line for each method; if there are several, another one says how their p-values are adjusted."""
    rows = comparison.frame.to_dict("index").items()
    lines = [escape.printable(" ".join(_sentences(comparison, str(method), row))) for method, row in rows]
    if len(lines) > 1:
        lines.append(f"The p-values are adjusted for {len(lines)} comparisons (Holm); each interval is unadjusted.")
    return "\n".join(lines)


def _sentences(comparison: "Comparison", method: str, row: _Row) -> Iterator[str]:
    if not row["pairs"]:
        yield f"{method} and {comparison.reference} have no (dataset, environment, trial) in common."
        return
    pairs = ""
    if row["pairs"] < row["pairs_total"]:
        pairs = f" in the {row['pairs']} of {row['pairs_total']} results that both have"
    yield (
        f"Over {_count(row['datasets'], 'dataset')} and {_count(row['trials'], 'trial')}, {method} differs from "
        f"{comparison.reference} by {_points(row)} points of held-out accuracy{pairs} (model selection: "
        f"{comparison.selection})."
    )
    for question, start in (("these", "On these datasets"), ("like", "For datasets like these")):
        if why := comparison.unanswered.get((method, question)):
            yield f"{start}: no interval, since {why}."
            continue
        answer = f"{_interval(row, question)}, {_p(row, question)} (t, df {row[f'{question}_df']:.0f})"
        yield f"{start}: {CONFIDENCE:.0%} interval {answer}."
    if not math.isnan(row["images_low"]):
        answer = f"{CONFIDENCE:.0%} interval {_interval(row, 'images')} (paired bootstrap)"
        yield f"For other test images of these environments alone: {answer}."


def write_all(comparison: "Comparison", folder: Path, *, stem: str = "compare") -> list[Path]:
    """Write `stem`.txt (with the sentence), .md, .tex, .csv and .json into `folder`; each complete or not at all."""
    texts = {
        ".txt": f"{text(comparison)}\n{sentence(comparison)}\n",
        ".md": markdown(comparison),
        ".tex": latex(comparison),
        ".csv": csv(comparison),
        ".json": json(comparison),
    }
    return [write_atomically(folder / f"{stem}{ending}", content) for ending, content in texts.items()]


def _below(comparison: "Comparison") -> Iterator[str]:
    """The sentences below the numbers."""
    ranks, shown = comparison.ranks, [comparison.reference, *comparison.frame.index]
    if there := [f"{name} {ranks[name]:.1f}" for name in shown if name in ranks.index]:
        yield (
            f"Mean rank over the datasets among {len(ranks)} methods (1 = best): {', '.join(there)}. It describes this "
            "table, and changes with the methods in it."
        )
    yield from comparison.notes


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _record(row: _Row) -> str:
    return f"{row['wins']}/{row['ties']}/{row['losses']}"


def _points(row: _Row) -> str:
    return "-" if math.isnan(row["difference"]) else f"{row['difference']:+z.2f}"


def _interval(row: _Row, question: str, sign: str = "-") -> str:
    low, high = row[f"{question}_low"], row[f"{question}_high"]
    return "-" if math.isnan(low) else f"[{low:{sign}z.2f}, {high:{sign}z.2f}]"


def _p(row: _Row, question: str) -> str:
    p = row[f"{question}_p_holm"]
    return "" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _t(row: _Row, question: str) -> str:
    t, df = row[f"{question}_t"], row[f"{question}_df"]
    return "" if math.isnan(t) else f"t = {t:.2f}, df {df:.0f}"


def _answer(row: _Row, question: str) -> str:
    return f"{_interval(row, question, '+')} {_p(row, question)}".rstrip()
