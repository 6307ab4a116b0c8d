"""`domainbed-sage paper audit`: the derived numbers of the printed tables, their marks, and the text against itself."""

from itertools import chain
from pathlib import Path

from domainbed_sage.paper.findings import Finding, command, publish

TITLE = "The SAGE paper's tables and text, computed again"


def findings(seed: int = 0) -> list[Finding]:
    """All of them: SAGE's tables, their marks and gains, the text in its order, then the tables of F-MTL.

    Args:
        seed: of the normal matrix on which Newton-Schulz iterations are tried, the only thing that is random.
    """
    from domainbed_sage.paper import derived, improvements, marks, newton_schulz, text_claims

    tables = (derived.findings(), marks.findings(), improvements.findings())
    found = chain(*tables, newton_schulz.findings(seed), text_claims.findings())
    return sorted(found, key=lambda one: one.section.startswith("F-MTL"))


def run(folder: Path, *, seed: int, quick: bool, as_json: bool) -> int:
    """Write and print the findings; the exit status is 0 whatever they are.

    Raises:
        UserError: a file cannot be written.
    """
    made_by = command("audit", seed, quick)
    publish(findings(seed), TITLE, "audit", folder, command=made_by, seed=seed, as_json=as_json)
    return 0
