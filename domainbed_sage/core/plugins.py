"""Algorithms, models and datasets from outside the package."""

import hashlib
import importlib.util
import os
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path

from domainbed_sage.core.errors import UserError, described

ENTRY_POINTS = "domainbed_sage.plugins"

_loaded: dict[Path, str] = {}


def load_plugin(path: Path) -> None:
    """Execute a Python file once, so that what it registers is known by name.

    It may import files from its own folder; installed packages come first where both have a name.

    Raises:
        UserError: the file does not exist, fails, ends the process, or has a neighbour whose module name is taken.
    """
    path = path.resolve()
    if path in _loaded:
        return
    name = f"domainbed_sage_plugin_{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"Plugin {path} should be a Python file; it does not exist or does not end in .py.")
    _check_neighbours(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what test frameworks raise to skip a file, are no Exceptions
        sys.modules.pop(name, None)
        if isinstance(error, UserError):
            raise UserError(f"Plugin {path}: {error}") from error
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" (line {lines[-1]})" if lines else ""
        raise UserError(f"Plugin {path} could not be loaded: {described(error)}{where}") from error
    _loaded[path] = name


def _check_neighbours(path: Path) -> None:
    """Refuse a second plugin with, say, its own ``layers.py`` beside it: Python would give both the first one."""
    for neighbour in path.parent.glob("*.py"):
        file = getattr(sys.modules.get(neighbour.stem), "__file__", None)
        taken = Path(file).resolve() if file else neighbour.resolve()
        if taken != neighbour.resolve() and any(taken.parent == other.parent for other in _loaded):
            raise UserError(
                f"Beside plugin {path} lies {neighbour.name}, and another plugin has imported {taken}: Python would "
                f"take the one for the other. Rename one of them."
            )


def loaded_plugins() -> list[Path]:
    """Files loaded so far; worker processes load them too."""
    return list(_loaded)


def load_installed() -> None:
    """Import the plugins of installed packages: their entry points in the group ``domainbed_sage.plugins``.

    Raises:
        UserError: one fails.
    """
    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:
            package = point.dist.name if point.dist else "a package"
            raise UserError(
                f"The plugin {point.name!r} of {package} ({point.value}) could not be loaded: "
                f"{described(error)}. Repair or uninstall that package."
            ) from error
