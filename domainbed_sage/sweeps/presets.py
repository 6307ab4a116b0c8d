"""The sweep files that come with the suite, by name: ``demo`` stands for ``sweeps/demo.yaml``, wherever it is."""

from pathlib import Path

from domainbed_sage.core.errors import UserError, known, near
from domainbed_sage.core.resources import shipped

SUFFIX = ".yaml"


def presets() -> dict[str, Path]:
    """The shipped sweep files by name.

    Raises:
        UserError: the installation is not complete.
    """
    return {path.stem: path for path in sorted(shipped("sweeps").glob(f"*{SUFFIX}"))}


def locate(given: Path) -> Path:
    """The sweep file that is meant: a file of this path or, where there is none, a preset of this name.

    Raises:
        UserError: it is neither.
    """
    if given.exists() and not given.is_dir():
        return given
    found = presets()
    if str(given).removesuffix(SUFFIX) in found:
        return found[str(given).removesuffix(SUFFIX)]
    if given.is_dir():
        return given  # its reader says what is wrong
    raise UserError(
        f"Sweep file {given} does not exist, and no preset has this name.{near(given.stem, found)} "
        f"{known(list(found)).replace('Known', 'Presets')}."
    )
