"""What `import domainbed_sage` offers, that it costs nothing until it is used, and that its examples are true."""

import ast
import doctest
import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.results import api

NAMES = {
    *("RunConfig", "make_config", "Machine", "run", "Algorithm", "register"),
    *("load_results", "table", "compare"),
}
EXAMPLES = [test for module in (dg, api) for test in doctest.DocTestFinder().find(module) if test.examples]


def new_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_importing_it_imports_the_standard_library_alone():
    code = """
import sys
before = set(sys.modules)
import domainbed_sage
names = dir(domainbed_sage)
print(sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
print(sorted(name for name in sys.modules if name.startswith("domainbed_sage")))
print(sorted(set(domainbed_sage.__all__) - set(names)), "__version__" in names, "config" in names)
"""
    assert new_process(code).splitlines() == ["['domainbed_sage']", "['domainbed_sage']", "[] True False"]


def test_every_name_is_there_and_no_module_takes_its_place():
    code = """
import importlib, pkgutil
import domainbed_sage
first = {name: getattr(domainbed_sage, name) for name in domainbed_sage.__all__}
for found in pkgutil.iter_modules(domainbed_sage.__path__, "domainbed_sage."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
from domainbed_sage import *
print(all(globals()[name] is getattr(domainbed_sage, name) is thing for name, thing in first.items()))
"""
    assert new_process(code) == "True\n"
    assert set(dg.__all__) == NAMES
    assert {dg.run.__module__, dg.run.__qualname__} == {"domainbed_sage.training.train", "run"}
    assert not [name for name in NAMES if importlib.util.find_spec(f"domainbed_sage.{name}")]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'domainbed_sage' has no attribute 'tables'"):
        _ = dg.tables  # type: ignore[attr-defined]


def test_type_checkers_see_what_is_imported():
    tree = ast.parse(Path(dg.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {line.module: tuple(alias.name for alias in line.names) for line in block.body}  # type: ignore[attr-defined]
    assert seen == dg._MODULES


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A made-up results folder for the examples: two algorithms on three datasets of four environments."""
    for d, dataset in enumerate(("PACS", "VLCS", "OfficeHome")):
        for gain, algorithm in ((0, "ERM"), (0.02 + 0.01 * d, "SAGE")):
            for trial in range(3):
                cells = [0.5 + 0.1 * e + gain + 0.01 * math.sin(e + 9 * trial + 100 * gain) for e in range(4)]
                args = {"dataset": dataset, "algorithm": algorithm, "trial": trial}
                sweep_folder.write_flat(tmp_path / "results" / "demo", [round(x, 3) for x in cells], **args)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example, demo, forget_plugins, capsys):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    results = runner.run(example)
    assert (results.failed, results.attempted > 1) == (0, True), capsys.readouterr().out


def test_every_name_has_an_example():
    code = "".join(part.source for example in EXAMPLES for part in example.examples)
    assert {name for name in NAMES if f"{name}(" in code or f"dg.{name}" in code} == NAMES
    assert len(EXAMPLES) == 4
