"""`domainbed-sage paper theory`: Theorem 1, Counterexample 1, Remark 1 and Appendix C, by computation."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed_sage.paper.findings import Finding, command, publish

if TYPE_CHECKING:
    from domainbed_sage.paper.theorem1 import Estimate

TITLE = "The SAGE paper's theory, by computation"
QUICK = 20  # divides the numbers of draws
SAMPLES = 400_000  # of Appendix C's data


def findings(seed: int = 0, *, quick: bool = False) -> "tuple[list[Finding], dict[str, list[Estimate]]]":
    """The findings in the order of the paper, and the estimates of Theorem 1 for the picture.

    Args:
        seed: of all random numbers.
        quick: fewer draws.
    """
    import numpy as np

    from domainbed_sage.paper import appendix_c, counterexample1, expansion, gaps

    shrink = QUICK if quick else 1
    found = expansion.estimates(seed, shrink)
    parts = (
        expansion.findings(found, expansion.deviations(seed, shrink), shrink),
        gaps.findings(),
        counterexample1.findings(),
        appendix_c.findings(np.random.default_rng([seed, 100]), SAMPLES // shrink),
    )
    return list(chain(*parts)), found


def run(folder: Path, *, seed: int, quick: bool, as_json: bool) -> int:
    """Draw the picture, write and print the findings; the exit status is 0 whatever they are.

    Raises:
        UserError: a file cannot be written.
    """
    from domainbed_sage.paper import theory_picture

    made, found = findings(seed, quick=quick)
    pictures = theory_picture.write(found, folder)
    made_by = command("theory", seed, quick)
    publish(made, TITLE, "theory", folder, command=made_by, seed=seed, as_json=as_json, pictures=pictures)
    return 0
