"""Findings as text for a terminal, as Markdown, and as a page in the look of the suite's report."""

import base64
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.core.errors import UserError, counted
from domainbed_sage.results import escape, render

if TYPE_CHECKING:
    from domainbed_sage.paper.findings import Finding

MIME = {".png": "image/png", ".svg": "image/svg+xml"}
COUNTED = ("follows", "only if rounded otherwise")  # on a terminal, so that what cannot follow is seen
CLASSES = {
    "follows": "u1",
    "holds": "u1",
    "only if rounded otherwise": "d1",
    "holds in part": "d1",
    "cannot follow": "d3",
    "does not hold": "d3",
}


@dataclass(frozen=True)
class Head:
    """What stands above the findings.

    Attributes:
        title: of the page.
        command: what made it.
        seed: of all random numbers.
        verdicts: how many findings have each.
    """

    title: str
    command: str
    seed: int
    verdicts: Mapping[str, int]

    @property
    def summary(self) -> str:
        """How many findings there are, and of which verdict."""
        each = ", ".join(f"{verdict}: {number}" for verdict, number in self.verdicts.items())
        return f"{counted(sum(self.verdicts.values()), 'finding')}" + (f" ({each})" if each else "")


def shown(pictures: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Of the pictures with one stem the first that a browser shows, by its path relative to the folder.

    Raises:
        UserError: a picture is not inside the folder.
    """
    outside = [str(picture) for picture in pictures if not picture.resolve().is_relative_to(folder.resolve())]
    if outside:
        raise UserError(f"Pictures should be inside {folder}, where the page links them. Found {', '.join(outside)}.")
    by_stem: dict[str, Path] = {}
    for picture in pictures:
        if picture.suffix in MIME:
            by_stem.setdefault(picture.stem, picture)
    return {picture.resolve().relative_to(folder.resolve()).as_posix(): picture for picture in by_stem.values()}


def grouped(findings: Sequence["Finding"]) -> list[tuple[str, list[tuple[str, list["Finding"]]]]]:
    """The findings by section, and in it by their computation: neighbours that share one stand together."""
    sections: dict[str, list[Finding]] = {}
    for one in findings:
        sections.setdefault(one.section, []).append(one)
    return [
        (section, [(how, list(same)) for how, same in groupby(own, lambda one: one.how)])
        for section, own in sections.items()
    ]


def place(one: "Finding") -> str:
    """`where` without the section that it stands in."""
    return one.where.removeprefix(one.section).removeprefix(", ") or one.section


def markdown(findings: Sequence["Finding"], head: Head, pictures: Mapping[str, Path]) -> str:
    """A table for each computation, under a heading for each section."""
    parts = [
        f"# {escape.markdown(head.title)}",
        f"Made by `{head.command}`, seed {head.seed}. {escape.markdown(head.summary)}.",
    ]
    parts += [f"![{_caption(name)}]({name})" for name in pictures]
    for section, tables in grouped(findings):
        parts.append(f"## {escape.markdown(section)}")
        for how, rows in tables:
            lines = ["| where | claim | computed | verdict |", "|:--|:--|:--|:--|"]
            lines += [
                f"| {' | '.join(map(escape.markdown, (place(one), one.claim, one.computed)))} | {_strong(one)} |"
                for one in rows
            ]
            parts += [f"How: {escape.markdown(how)}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _strong(one: "Finding") -> str:
    return one.verdict if CLASSES[one.verdict] == "u1" else f"**{one.verdict}**"


def html(findings: Sequence["Finding"], head: Head, pictures: Mapping[str, Path]) -> str:
    """One page that asks the network for nothing: the style of the report, pictures inside of it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from domainbed_sage.results.report.page import finalize, hashed

    environment = Environment(
        loader=PackageLoader("domainbed_sage.paper", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=finalize,
    )
    style = "".join(
        files(wing).joinpath(name).read_text(encoding="utf-8")
        for wing, name in (("domainbed_sage.results.report", "style.css"), ("domainbed_sage.paper", "findings.css"))
    )
    return environment.get_template("findings.html.j2").render(
        head=head,
        sections=grouped(findings),
        place=place,
        classes=CLASSES,
        pictures=[{"source": _inlined(path), "caption": _caption(name)} for name, path in pictures.items()],
        style=Markup(style),
        style_hash=hashed(style),
    )


def _inlined(picture: Path) -> str:
    return f"data:{MIME[picture.suffix]};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _caption(name: str) -> str:
    return Path(name).stem.replace("_", " ")


def show(findings: Sequence["Finding"], head: Head, written: Sequence[Path], numbers: str) -> None:
    """Print what does not simply follow, how much does, and the files; or the numbers, and the files to stderr."""
    print(numbers or text(findings, head))
    for path in written:
        print(f"Wrote {path}", file=sys.stderr if numbers else None)


def text(findings: Sequence["Finding"], head: Head) -> str:
    """For a terminal: the verdict and place of every finding on a line, claim and computation below."""
    parts = render.paragraph([f"-------- {head.title}", f"{head.summary}."])
    for section, tables in grouped(findings):
        rows = [one for _, rows in tables for one in rows]
        many = Counter[str](one.verdict for one in rows)
        lines = [f"{verdict}: {counted(many[verdict], 'number')}" for verdict in COUNTED if many[verdict]]
        for one in (one for one in rows if one.verdict not in COUNTED):
            lines.append(f"{one.verdict.upper()}: {place(one)}. Claimed: {one.claim}. Computed: {one.computed}")
        parts.append("\n".join([section, *(line for entry in lines for line in _indented(entry))]))
    return "\n\n".join(parts) + "\n"


def _indented(entry: str) -> list[str]:
    return textwrap.wrap(escape.printable(entry), render.WIDTH, initial_indent="  ", subsequent_indent="      ")
