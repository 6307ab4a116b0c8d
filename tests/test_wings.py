"""The order of the wings: no module imports from a wing above its own, at whatever depth of its code."""

import ast
from pathlib import Path

import pytest

import domainbed_sage

PACKAGE = Path(domainbed_sage.__file__).parent
WINGS = (  # each may import from itself and from those before it
    "core",
    "geometry",
    "models",
    "tasks",
    "data",
    "data.acquire",
    "data.multitask",
    "algorithms.solvers",  # a part of the next one: both import from each other
    "algorithms",
    "results",
    "results.report",
    "config",
    "training",
    "training.replays",
    "sweeps",
    "sweeps.cluster",
    "paper",
    "cli",
)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name == "config.py")


def module(path):
    names = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def floor(name):
    """Place of a module in the order of the wings."""
    return max(at for at, wing in enumerate(WINGS) if name == wing or name.startswith(f"{wing}."))


def imported(tree):
    """Names of this package's modules that a file imports; of `from a import b` both a and a.b, whichever there is."""
    prefix = "domainbed_sage."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not counted here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix(prefix) for name in names if name.startswith(prefix))


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_import_runs_up(path):
    own = floor(module(path))
    up = [name for name in imported(ast.parse(path.read_text())) if name != "__version__" and floor(name) > own]
    assert up == []


def test_every_folder_is_a_wing():
    folders = {module(path / "__init__.py") for path in PACKAGE.rglob("*") if (path / "__init__.py").exists()}
    assert folders | {"config"} == set(WINGS)


def test_the_check_sees_an_import_that_runs_up():
    tree = ast.parse("def f():\n    from domainbed_sage.cli import table")
    assert [floor(name) > floor("sweeps.sweep") for name in imported(tree)] == [True]
