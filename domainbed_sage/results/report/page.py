"""From results folders to `report.html` and `report.json`."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from domainbed_sage.core import strict_json
from domainbed_sage.core.files import write_atomically
from domainbed_sage.results import looks, references, render
from domainbed_sage.results.compare import QUESTIONS
from domainbed_sage.results.escape import printable
from domainbed_sage.results.report import details, overview, svg, verdicts
from domainbed_sage.results.report.formats import FILTERS
from domainbed_sage.results.report.gathered import Gathered, Wanted, gather, ranked, with_results
from domainbed_sage.results.report.sections import Data, made

VERSION = 1  # of report.json
TITLES = (
    *(("verdict", "Verdict"), ("averages", "Averages"), ("differences", "Differences")),
    *(("environments", "Environments"), ("datasets", "Datasets"), ("selection", "Model selection")),
    *(("ranks", "Ranks"), ("curves", "Curves"), ("cost", "Cost"), ("failures", "Failures"), ("runs", "Runs")),
    *(("paper", "Paper"), ("method", "Method"), ("cite", "Citing")),
)
MEASURES = {
    "selected_so_far": "accuracy selected so far, %",
    "source_validation": "source validation, %",
    "loss": "training loss",
}
FEW_TICKS = 4  # of an axis in a narrow column
DRAWN = 4  # curves at first, besides the reference and the declared rows
RUN_COLUMNS = ("state", "dataset", "method", "held_out", "trial", "step", "validation", "accuracy", "setting", "folder")


def write(folders: Sequence[Path], wanted: Wanted, out: Path) -> list[str]:
    """Write the page, and its numbers beside it as `.json`; returns what is damaged in the folders.

    Raises:
        UserError: see `gather`; or the files cannot be written.
    """
    gathered = gather(folders, wanted)
    data = sections(gathered)
    numbers = strict_json.dumps({"version": VERSION, **data})
    page = rendered(gathered, data)
    write_atomically(out, page)
    write_atomically(out.with_suffix(".json"), numbers)
    return gathered.loaded.faults


def sections(g: Gathered) -> dict[str, Data]:
    """The data of every section, in order."""
    rows = with_results(g.table)
    return {
        "state": {
            "title": " + ".join(folder.resolve().name or str(folder) for folder in g.folders),
            "newest": f"{g.newest:%Y-%m-%d %H:%M} UTC",
            "command": g.wanted.command,
            **overview.state(g.loaded, g.table, len(g.failures)),
        },
        "verdict": made(verdicts.verdict, ranked(g.table), g.against, g.declared),
        "averages": overview.averages(g.table, g.from_best, g.against),
        "differences": made(overview.differences, g.against, g.declared),
        "by_dataset": made(overview.by_dataset, g.table, g.against),
        "heat": made(overview.heat, g.table, g.wanted.reference),
        "datasets": overview.datasets(g.table),
        "selections": overview.selections(g.tables, rows),
        "validation": overview.validation(g.table),
        "ranks": made(verdicts.ranks, rows, g.against),
        "curves": made(details.curves, g.records, g.measured, g.names),
        "cost": made(details.cost, g.table, g.records, g.measured),
        "failures": made(details.failed, g.failures),
        "runs": details.runs(g.loaded, g.table, g.failures, g.names),
        "paper": made(details.paper, g.table, g.records, g.wanted.with_paper),
    }


def rendered(g: Gathered, data: Mapping[str, Data]) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("domainbed_sage.results.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=finalize,
    )
    environment.filters |= FILTERS
    order = [str(name) for name in g.table.averages.cells.index]
    style, script = _styles(order), _asset("script.js")
    return environment.get_template("template.html.j2").render(
        **data,
        **_pictures(data),
        title=data["state"]["title"],
        newest=data["state"]["newest"],
        command=g.wanted.command,
        reference=g.wanted.reference,
        mixed=[fact["fact"] for fact in data["state"]["provenance"] if not fact["uniform"]],
        many_datasets=len(data["state"]["datasets"]) > 1,
        sections=TITLES,
        bibtex=escape(references.bibtex(*references.used(g.records))),  # its line breaks are wanted
        style=Markup(style),
        style_hash=hashed(style),
        script=Markup(script),
        script_hash=hashed(script),
        data=Markup(_embedded(_for_script(g, data, order))),
    )


def _pictures(data: Mapping[str, Data]) -> dict[str, Any]:
    """The forests of differences and the ranks, a picture for each row, or each row and dataset."""
    rows = data["differences"].get("rows", [])
    bars = [[(row[f"{q}_low"], row[f"{q}_high"]) for row in rows] for q in (*QUESTIONS, "images")]
    means = [row["difference"] for row in rows]
    axis = svg.axis([*means, *chain(*chain(*bars))], 0.0)
    each = [row["cells"] for row in data["by_dataset"].get("rows", [])]
    common = svg.axis((cell[name] for cell in chain(*each) for name in ("difference", "low", "high")), 0.0, FEW_TICKS)
    places = data["ranks"].get("rows", [])
    ranks = svg.axis([row["rank"] for row in places], 1.0)
    return {
        "forest_head": svg.head(axis, "points"),
        "forest": [
            svg.interval(axis, mean, these, like, dotted=images)
            for mean, these, like, images in zip(means, *bars, strict=True)
        ],
        "each_head": svg.head(common, "points"),
        "each": [
            [svg.interval(common, cell["difference"], (cell["low"], cell["high"])) for cell in cells] for cells in each
        ],
        "rank_head": svg.head(ranks, "mean rank"),
        "rank_rows": [svg.interval(ranks, row["rank"], zero=None) for row in places],
    }


def _styles(order: Sequence[str]) -> str:
    """The style sheet with the look of every method, by its place in the order."""
    light, dark = [], []
    for at, look in enumerate(looks.looks(order).values()):
        dash = f";stroke-dasharray:{' '.join(f'{2 * part:g}' for part in look.dash)}" if look.dash else ""
        light.append(f".line.m{at}{{stroke:{look.colour}{dash}}}.mark.m{at}{{fill:{look.colour}}}")
        dark.append(f".line.m{at}{{stroke:{look.on_dark}}}.mark.m{at}{{fill:{look.on_dark}}}")
    own = "\n".join([*light, "@media (prefers-color-scheme:dark){", *dark, "}"])
    return f"{_asset('style.css')}{own}\n"


def _asset(name: str) -> str:
    return files("domainbed_sage.results.report").joinpath(name).read_text(encoding="utf-8")


def hashed(text: str) -> str:
    """The hash of a style or script, by which a page's policy allows it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _for_script(g: Gathered, data: Mapping[str, Data], order: Sequence[str]) -> dict[str, Any]:
    """What the script shows on demand, rounded as it is shown."""
    best = [name for name in (g.wanted.reference, *g.wanted.compared, *ranked(g.table), *order) if name]
    few = list(dict.fromkeys(best))[: max(DRAWN, 1 + len(g.wanted.compared))]
    averages = g.table.averages
    strings, bold = averages.strings("±"), render.best(averages)
    caption = render.caption(g.table, averages)
    return {
        "methods": [printable(name) for name in order],
        "drawn": [printable(name) for name in few],
        "measures": MEASURES,
        "copies": {
            "markdown": render.markdown_grid(strings, bold),
            "latex": render.PREAMBLE + render.latex_grid(strings, caption, f"tab:{g.table.method.name}", bold),
            "csv": render.csv_text(averages.means.reset_index()),
        },
        "curves": [_curves(own) for own in data["curves"].get("datasets", [])],
        "runs": [[_short(row.get(name)) for name in RUN_COLUMNS] for row in data["runs"]["rows"]],
    }


def _curves(own: Data) -> Data:
    lines = {
        printable(measure): {
            printable(method): [None if env is None else [_rounded(value) for value in env] for env in envs]
            for method, envs in by_method.items()
        }
        for measure, by_method in own["lines"].items()
    }
    named = {"name": printable(own["name"]), "environments": [printable(name) for name in own["environments"]]}
    selected = {printable(method): envs for method, envs in own["selected"].items()}
    return {**named, "steps": own["steps"], "lines": lines, "selected": selected}


def _rounded(value: float) -> float | None:
    """Four digits; None for NaN and the infinities."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.1f}" if math.isfinite(value) else None
    if isinstance(value, list):
        return printable(" + ".join(value))
    return printable(value) if isinstance(value, str) else value


def _embedded(value: Any) -> str:
    """JSON that may stand inside a `script` element."""
    text = strict_json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def finalize(value: Any) -> Any:
    """What the template prints: names without invisible characters."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
