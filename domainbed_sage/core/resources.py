"""Files that are shipped with the suite but are outside the package: sweeps, printed tables."""

from pathlib import Path

from domainbed_sage.core.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped(relative: str) -> Path:
    """Path of a shipped file or folder, e.g. ``results/paper/table1.csv``.

    An installed package carries a copy; a checkout has it at its top level.

    Raises:
        UserError: it is in neither place.
    """
    places = (_PACKAGE / "_shipped" / relative, _PACKAGE.parent / relative)
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"{relative} is missing: neither {places[0]} nor {places[1]} exists. "
        "Install the package again, or work in a complete checkout."
    )
