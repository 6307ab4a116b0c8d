"""A claim of a paper, what this suite computed about it, and the verdict; and all findings of one check as files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from domainbed_sage.core import strict_json
from domainbed_sage.core.files import write_atomically

if TYPE_CHECKING:
    from domainbed_sage.paper import pages

Verdict = Literal[
    "follows",
    "only if rounded otherwise",
    "cannot follow",
    "holds",
    "holds in part",
    "does not hold",
]
DIGITS, NOTHING = 10, 1e-12  # of a published number; what is smaller in size is a rounding error, published as 0
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Finding:
    """One claim and its check.

    Attributes:
        where: its place in the paper, from the larger to the smaller, e.g. ``Table 2, NYU-v2, IMTL-G``.
        claim: what is claimed, in a few neutral words.
        computed: what was computed, with its numbers, in a sentence.
        verdict: whether the claim follows from the numbers printed (the first three), or holds (the others).
        how: the computation, in a sentence that lets a reader repeat it; the same for rows that share one.
        numbers: the numbers of `computed`, by name; published to `DIGITS` digits, which do not depend on the machine.
    """

    where: str
    claim: str
    computed: str
    verdict: Verdict
    how: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def section(self) -> str:
        """The first part of `where`: findings are listed by it."""
        return self.where.partition(",")[0]


def command(part: str, seed: int, quick: bool) -> str:
    """The shortest command that makes these findings, for `publish`."""
    words = ["domainbed-sage", "paper", part, *(["--seed", str(seed)] if seed else []), *(["--quick"] if quick else [])]
    return " ".join(words)


def publish(
    findings: Sequence[Finding],
    title: str,
    name: str,
    folder: Path,
    *,
    command: str,
    seed: int,
    as_json: bool,
    pictures: Sequence[Path] = (),
) -> None:
    """Write the findings as `name`.json, .md and .html into `folder`, print them, and say where files and pictures are.

    The files hold no dates and no paths of this machine: the same findings give the same bytes.

    Args:
        findings: in the order in which they are listed.
        title: of the page, e.g. "The tables of the SAGE paper, computed again".
        name: stem of the files.
        folder: where they go; made if it does not exist.
        command: what made them, see `command`.
        seed: of all random numbers.
        as_json: print the JSON, and nothing else on the standard output.
        pictures: files inside `folder`, written before; of those with one stem the page shows the first PNG or SVG.

    Raises:
        UserError: a file cannot be written, or a picture is not inside the folder.
    """
    from domainbed_sage.paper import pages

    head = pages.Head(title, command, seed, counts(findings))
    shown = pages.shown(pictures, folder)
    numbers = _json(findings, head, shown)
    files = [
        write_atomically(folder / f"{name}.json", f"{numbers}\n"),
        write_atomically(folder / f"{name}.md", pages.markdown(findings, head, shown)),
        write_atomically(folder / f"{name}.html", pages.html(findings, head, shown)),
    ]
    pages.show(findings, head, [*files, *pictures], numbers if as_json else "")


def _json(findings: Sequence[Finding], head: "pages.Head", pictures: Iterable[str]) -> str:
    whole = {**asdict(head), "pictures": list(pictures), "findings": [_rounded(one) for one in findings]}
    return strict_json.dumps(whole, indent=1, ensure_ascii=False)


def _rounded(one: Finding) -> dict[str, Any]:
    numbers = {name: 0.0 if abs(value) < NOTHING else value for name, value in one.numbers.items()}
    return {**asdict(one), "numbers": {name: float(f"{value:.{DIGITS}g}") for name, value in numbers.items()}}


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many findings have each verdict; without those that none has."""
    found = Counter(one.verdict for one in findings)
    return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}
