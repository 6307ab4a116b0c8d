"""Plugins: files beside them, equal names, and everything that can go wrong in one is a message."""

import os
import pickle
import re
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from domainbed_sage.algorithms import algorithms
from domainbed_sage.cli import main
from domainbed_sage.core import plugins
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.plugins import load_installed, load_plugin, loaded_plugins

pytestmark = pytest.mark.usefixtures("forget_plugins")

ALGORITHM = """
from domainbed_sage.algorithms import algorithms, register

@register("{name}")
class {name}(algorithms["ERM"]):
    constant = {constant}
"""


def write(folder, name, content):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(content)
    return path


def test_a_plugin_imports_a_file_beside_it(tmp_path):
    write(tmp_path, "its_constants.py", "VALUE = 3")
    plugin = ALGORITHM.format(name="Mine", constant="its_constants.VALUE")
    load_plugin(write(tmp_path, "mine.py", "import its_constants\n" + plugin))
    assert algorithms["Mine"].constant == 3  # type: ignore[attr-defined]


def test_installed_packages_come_before_what_lies_beside(tmp_path):
    """A colorsys.py beside a plugin, or whatever the standard library imports later, does not take its place."""
    write(tmp_path, "colorsys.py", "raise ZeroDivisionError")
    load_plugin(write(tmp_path, "mine.py", "import colorsys\ncolorsys.rgb_to_hsv(0, 0, 0)"))


def test_two_plugins_of_the_same_name(tmp_path):
    """Each is a module of its own: otherwise objects of the first could not be pickled any more."""
    for number, folder in enumerate("ab"):
        load_plugin(write(tmp_path / folder, "mine.py", ALGORITHM.format(name=f"Mine{number}", constant=number)))
    for number in (0, 1):
        cls = algorithms[f"Mine{number}"]
        assert pickle.loads(pickle.dumps(cls)) is cls
        assert cls.constant == number


def test_two_plugins_with_different_files_of_the_same_name_beside_them(tmp_path):
    for folder in "ab":
        write(tmp_path / folder, "layers_of_mine.py", f"NAME = {folder!r}")
    load_plugin(write(tmp_path / "a", "one.py", "import layers_of_mine"))
    second = write(tmp_path / "b", "two.py", "import layers_of_mine")
    with pytest.raises(UserError, match=r"Beside plugin .*two\.py lies layers_of_mine\.py, and another plugin has imp"):
        load_plugin(second)
    load_plugin(write(tmp_path / "a", "three.py", "import layers_of_mine"))  # beside the same file


def test_a_plugin_is_loaded_once(tmp_path):
    path = write(tmp_path, "mine.py", ALGORITHM.format(name="Mine", constant=1))
    for _ in range(2):
        load_plugin(path)
    assert loaded_plugins().count(path) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\nx = 1 / 0", r"could not be loaded: ZeroDivisionError: division by zero \(line 2\)"),
        ("def f():\n    1 / 0\n\nf()", r"ZeroDivisionError: division by zero \(line 2\)"),
        ("raise SystemExit(3)", r"SystemExit: 3 \(line 1\)"),
        ("import sys; sys.exit()", r"SystemExit:  \(line 1\)"),
        ("import no_such_module_anywhere", r"No module named 'no_such_module_anywhere' \(line 1\)"),
        ("class E(BaseException): pass\nraise E('skipped')", r"could not be loaded: E: skipped \(line 2\)"),
        (
            "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E",
            r"could not be loaded: E: <exception str\(\) failed> \(line 4\)",
        ),
        ("from domainbed_sage.models import register_model\nregister_model('m')(3)", r"Model 'm' should be a function"),
        (
            "from domainbed_sage.data.specs import datasets\ndatasets.register('D')(3)",
            r"dataset 'D' should be a DatasetSpec",
        ),
        ("def f(:", r"SyntaxError: invalid syntax \(mine\.py, line 1\)"),
        ("raise ValueError('')", r"ValueError:  \(line 1\)"),
        (ALGORITHM.format(name="ERM", constant=1), r": algorithm 'ERM' is registered twice"),
        (
            "from domainbed_sage.algorithms import register\nregister('X')(3)",
            r"'X' should be a subclass of Algorithm.*3",
        ),
        (
            "from domainbed_sage.algorithms import Algorithm, register\nregister('X')(type('X', (Algorithm,), {}))",
            r"'X' should be a subclass of Algorithm with an update\. Found <class",
        ),
    ],
)
def test_a_plugin_that_fails(tmp_path, content, message):
    path = write(tmp_path, "mine.py", content)
    with pytest.raises(UserError, match=rf"Plugin {re.escape(str(path))}.*{message}"):
        load_plugin(path)
    assert path not in loaded_plugins()
    assert not [name for name in sys.modules if name.startswith("domainbed_sage_plugin_mine")]


def test_a_plugin_that_cannot_be_read(tmp_path):
    (tmp_path / "mine.py").mkdir()
    with pytest.raises(UserError, match=r"should be a Python file; it does not exist or does not end in \.py"):
        load_plugin(tmp_path / "mine.py")
    path = write(tmp_path, "latin.py", "")
    path.write_bytes(b"x = '\xff'")
    with pytest.raises(UserError, match=r"latin\.py could not be loaded: SyntaxError: .*utf-8"):
        load_plugin(path)


@pytest.mark.parametrize("value", ["no_such_module_anywhere", "this_one_exits"])
def test_an_installed_plugin_that_fails(tmp_path, monkeypatch, capsys, value):
    """It would fail every command: the message says whose it is."""
    write(tmp_path, "this_one_exits.py", "raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("theirs", value, plugins.ENTRY_POINTS)
    vars(point)["dist"] = SimpleNamespace(name="their-package")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    with pytest.raises(UserError, match=rf"The plugin 'theirs' of their-package \({value}\) could not be loaded: "):
        load_installed()
    assert main(["data", "list"]) == 2
    assert "Repair or uninstall that package." in capsys.readouterr().err


def test_no_description(tmp_path, capsys):
    content = ALGORITHM.format(name="Mine", constant=1) + "Mine.__doc__ = None\n"
    path = write(tmp_path, "mine.py", "from domainbed_sage.models import register_model\n" + content)
    with path.open("a") as file:
        file.write("@register_model('bare')\ndef bare(classes): pass\n")
    for what in ("algorithms", "models"):
        assert main(["list", what, "--plugin", str(path)]) == 0
    assert "bare: (no description)\n" in capsys.readouterr().out


def test_only_the_user_interrupts(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        load_plugin(write(tmp_path, "mine.py", "raise KeyboardInterrupt"))


def test_a_default_that_json_does_not_know(tmp_path, capsys):
    constructor = "    def __init__(self, problem, *, odd: object = object()): pass"
    path = write(tmp_path, "mine.py", ALGORITHM.format(name="Mine", constant=1) + constructor)
    assert main(["list", "algorithms", "--json", "--plugin", str(path)]) == 2
    assert "error: Hyperparameter 'odd' cannot be described in JSON: Pydantic" in capsys.readouterr().err


def test_a_plugin_whose_path_is_no_text(tmp_path):
    """A name of bytes that are not UTF-8, as old disks have them."""
    path = tmp_path / os.fsdecode(b"\xfc.py")
    with pytest.raises(UserError, match="should be a Python file; it does not exist"):
        load_plugin(path)
    path.write_text("")
    load_plugin(path)
