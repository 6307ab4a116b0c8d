"""Plugins: Python files that are wrong in ways in which people's files are. Nothing that they hold does any harm."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from domainbed_sage.algorithms import algorithms
from domainbed_sage.cli import main
from domainbed_sage.core import plugins
from domainbed_sage.data.specs import datasets
from domainbed_sage.models import models
from domainbed_sage.training.callbacks import callbacks
from fuzzing.damage import Bytes, damaged_text
from fuzzing.reader import Reader, silent

GOOD = '''"""An algorithm and a model."""

from typing import Annotated

from pydantic import Field
from torch import nn

from domainbed_sage.algorithms import algorithms, register
from domainbed_sage.core.hparams import Choice, Power
from domainbed_sage.models import ImageSpec, Model, register_model


@register("Mine")
class Mine(algorithms["ERM"]):
    """Mine."""

    def __init__(self, problem, *, mine: TYPE = 1.0) -> None:
        super().__init__(problem)


@register_model("mynet", lr=1e-3)
def mynet(classes, *, width: int = 16) -> Model:
    """Mine."""
'''
TYPES = (
    *("Annotated[float, Field(ge=0), Power(10, -1, 5)] = 1.0", "float = 'x'", "float = None", "int = 1.5", "float"),
    *("'NoSuchType' = 1", "3 = 1", "list = []", "list[int] = [1]", "object = object()", "nn.Module = None"),
    *("Annotated[float, Field(ge='x')] = 1.0", "Annotated[float, Choice()] = 1.0", "float = float('nan')", "str = 'a'"),
    *("Annotated[str, Power(10, -1, 5)] = 'a'", "Annotated[float, Power] = 1.0", "Callable = print", "x = 1"),
    *("dict = {}, lr: float = 1.0", "float = 1.0, mine: float = 2.0", "float = 1.0, **others", "complex = 1j"),
)
PIECES = (
    *("x = 1 / 0\n", "import no_such_module\n", "raise SystemExit(3)\n", "raise ValueError\n"),
    *("import sys; sys.exit()\n", "class B(BaseException):\n    pass\nraise B('b')\n", "raise GeneratorExit\n"),
    *(
        "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E\n",
        "raise KeyError('\\x1b[2J')\n",
    ),
    *("def f():\n    f()\nf()\n", "assert False\n", "x = [0] * 10**12\n", "exec('(' * 500)\n"),
    *("raise ExceptionGroup('g', [ValueError()])\n", "from . import x\n"),
    *("Mine.__doc__ = None\n", "Mine.__doc__ = ''\n", "mynet.__doc__ = None\n"),
    *("register('X')(3)\n", "register(3)(Mine)\n", "register('')(Mine)\n", "register([])(Mine)\n"),
    *("register('Mine')(Mine)\n", "register('a\\nb')(Mine)\n", "register_model('m')(3)\n"),
    *("register('M2')(type('M2', (Mine,), {'update': 3}))\n", "register_model(None)(mynet)\n"),
    *("register_model('m2', lr='x')(mynet)\n", "register_model('m3', other=1)(mynet)\n"),
    *("# -*- coding: no-such -*-\n", "\x00", "\ufeff", "return\n", "    x\n", "x = '", "await y\n", "print('hello')\n"),
    *("from domainbed_sage.data.specs import datasets\n", "datasets.register('D')(3)\n"),
)


def _plugins() -> Bytes:
    def write(declared: str, before: str, after: str) -> bytes:
        return (before + GOOD.replace("TYPE = 1.0", declared) + after).encode()

    piece = st.sampled_from(PIECES)
    nothing = st.just("")
    good = st.just(TYPES[0])
    return st.one_of(
        st.builds(write, st.sampled_from(TYPES), nothing, nothing),
        st.builds(write, good, nothing, piece),
        st.builds(write, good, piece, nothing),
        damaged_text(GOOD.replace("TYPE = 1.0", TYPES[0])),
        st.binary(max_size=60),
    )


@contextmanager
def forgotten() -> Iterator[None]:
    """What is registered and imported inside of the block is unknown again afterwards."""
    kept: list[Any] = [algorithms._things, datasets._things, models._things, callbacks._things, plugins._loaded]
    before, path = [dict(things) for things in kept], list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = path
        for things, then in zip(kept, before, strict=True):
            things.clear()
            things.update(then)
        for name in [name for name in sys.modules if name.startswith("domainbed_sage_plugin_")]:
            del sys.modules[name]


def _read_plugin(content: bytes, folder: Path) -> None:
    path = folder / "mine.py"
    path.write_bytes(content)
    with forgotten(), silent():
        for words in (["list", "algorithms"], ["list", "models", "--json"], ["data", "list"]):
            status = main([*words, "--plugin", str(path)])
            assert status in (0, 2)
            if status:
                return
        words = ["train", "--algorithm", "Mine", "--model", "mynet", "--output_dir", str(folder), "--steps", "0"]
        assert main([*words, "--plugin", str(path)]) == 2


READERS = (Reader("plugin", _plugins(), _read_plugin),)
