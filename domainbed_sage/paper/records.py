"""Finished records that a figure is made of: those of a sweep here, or those that come with the suite."""

import sys
from pathlib import Path

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.resources import shipped


def folder(name: str, flags: str = "") -> Path | None:
    """The results folder of a sweep, ``results/<name>``; None, and a message, where there is none.

    Args:
        name: of the sweep.
        flags: what `sweep run` has to be given besides.
    """
    here = Path("results") / name
    if here.is_dir():
        return here
    try:
        return shipped(f"results/{name}")
    except UserError:
        say(name, f"there are no records in {here}", flags)
        return None


def say(name: str, why: str, flags: str = "") -> None:
    """That a figure is left out, and what makes its records."""
    command = " ".join(["domainbed-sage sweep run", name, *([flags] if flags else [])])
    print(f"A figure is left out: {why}. To make them: {command}", file=sys.stderr)
