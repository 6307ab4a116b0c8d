"""Algorithms, models and datasets from outside the package."""

import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path

from domainbed_sage.core.errors import UserError

ENTRY_POINTS = "domainbed_sage.plugins"

_loaded: dict[Path, str] = {}


def load_plugin(path: Path) -> None:
    """Execute a Python file once, so that what it registers is known by name.

    Raises:
        UserError: the file does not exist, or fails.
    """
    path = path.resolve()
    if path in _loaded:
        return
    name = f"domainbed_sage_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"Plugin {path} should be a Python file; it does not exist or does not end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"Plugin {path} could not be loaded: {type(error).__name__}: {error}") from error
    _loaded[path] = name


def loaded_plugins() -> list[Path]:
    """Files loaded so far; worker processes load them too."""
    return list(_loaded)


def load_installed() -> None:
    """Import the plugins of installed packages: their entry points in the group `domainbed_sage.core.plugins`."""
    for point in entry_points(group=ENTRY_POINTS):
        point.load()
