"""`domainbed-sage paper figures`: Figures 1 to 5 computed anew, and what their captions and text claim."""

from collections.abc import Callable
from pathlib import Path

from domainbed_sage.paper import fig1, fig2, fig3, fig4, fig5
from domainbed_sage.paper.drawing import Part
from domainbed_sage.paper.findings import Finding, command, publish

TITLE = "The figures of the SAGE paper, computed again"
PARTS: tuple[tuple[str, Callable[[int, bool], Part]], ...] = (  # stem of the picture, and what makes it
    ("fig1", fig1.check),
    ("fig2", fig2.check),
    ("fig3_grid", fig3.check_grid),
    ("fig3_components", fig3.check_components),
    ("fig4", fig4.check),
    ("fig5", fig5.check),
)


def run(output_dir: Path, *, seed: int = 0, quick: bool = False, as_json: bool = False) -> int:
    """Compute every figure, write pictures and findings into a folder, and print the findings.

    Figures 3 and 5 are drawn from finished records; where there are none, a line says which command makes them.

    Raises:
        UserError: the folder cannot be written; records cannot be read.
    """
    from domainbed_sage.results.picture import write_all

    found: list[Finding] = []
    pictures: list[Path] = []
    for stem, check in PARTS:
        part = check(seed, quick)
        found += part.findings
        if part.figure is not None:
            pictures += write_all([part.figure], output_dir, stem)
    how = command("figures", seed, quick)
    publish(found, TITLE, "figures", output_dir, command=how, seed=seed, as_json=as_json, pictures=pictures)
    return 0
