"""Plant single faults into modules and see whether their tests notice: which lines could be wrong without a word?

    python scripts/mutate.py domainbed_sage/geometry --sample 30 --seed 0
    python scripts/mutate.py domainbed_sage/results/tables.py --tests tests/results/test_tables.py --only 57,103

A fault is another comparison, operator or number, a condition turned round, a statement or a guard left out, min for
max, any for all. Types, texts, log messages and what is raised stay as they are. The tests of a module are the files
in the folder that mirrors its own which mention it, those named after it first. Every fault runs in a fork of a process
that has imported the libraries, with the module compiled from its changed syntax tree: nothing is written. Faults that
survive are listed with their numbers, which `--only` repeats; whether one of them matters is for a person to judge.
"""

import argparse
import ast
import importlib
import os
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from operator import setitem
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WARM = (
    *("torch", "torchvision", "torchvision.transforms.v2", "timm", "open_clip", "numpy", "pandas", "scipy.stats"),
    *("pyarrow.parquet", "pydantic", "matplotlib.pyplot", "rich.console", "submitit", "huggingface_hub", "ruamel.yaml"),
)
TIMEOUT_S = 180
COMPARED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.USub: ast.UAdd,
    ast.Invert: ast.UAdd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "amin": "amax", "amax": "amin"}
TEXTS = (ast.JoinedStr, ast.Raise)
LOGS = re.compile(r"(log|_log|logging|warnings)\.")


@dataclass(frozen=True)
class Fault:
    """One fault: its line, what it is, and what plants it into the syntax tree that it was found in."""

    line: int
    text: str
    plant: Callable[[], object]


def faults(tree: ast.Module) -> Iterator[Fault]:
    """Every fault that can be planted, always in the same order."""
    for node in _code(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Compare):
            for i, op in enumerate(node.ops):
                if type(op) in COMPARED:
                    other = COMPARED[type(op)]
                    yield Fault(line, _change(op, other), partial(setitem, node.ops, i, other()))
        elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp | ast.AugAssign) and type(node.op) in OPERATORS:
            yield Fault(line, _change(node.op, OPERATORS[type(node.op)]), partial(_set, node, "op"))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield Fault(line, "not left out", partial(_turn, node, "operand"))
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield Fault(line, "condition turned round", partial(_turn, node, "test"))
        elif isinstance(node, ast.comprehension):
            for i, test in enumerate(node.ifs):
                yield Fault(test.lineno, "filter left out", partial(setitem, node.ifs, i, ast.Constant(True)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = (not node.value) if isinstance(node.value, bool) else node.value + 1
            yield Fault(line, f"{node.value} → {value}", partial(setattr, node, "value", value))
        elif isinstance(node, ast.Name | ast.Attribute) and (name := _name(node)) in NAMES:
            field = "id" if isinstance(node, ast.Name) else "attr"
            yield Fault(line, f"{name} → {NAMES[name]}", partial(setattr, node, field, NAMES[name]))
        for body in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
            for i, statement in enumerate(body if isinstance(body, list) else []):
                if isinstance(statement, ast.Raise | ast.AugAssign | ast.Continue | ast.Break) or _calls(statement):
                    text = f"left out: {ast.unparse(statement).splitlines()[0][:60]}"
                    yield Fault(statement.lineno, text, partial(setitem, body, i, ast.Pass()))


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """What is run: no types, texts, decorators or log messages."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if isinstance(child, ast.AST) and not isinstance(child, TEXTS) and not typing_only and not _is_log(child):
                yield from _code(child)


def _is_log(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr | ast.Call) and LOGS.match(ast.unparse(node)) is not None


def _calls(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and not _is_log(statement)


def _name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _change(op: ast.AST, other: type) -> str:
    return f"{type(op).__name__} → {other.__name__}"


def _set(node: Any, field: str) -> None:
    setattr(node, field, OPERATORS[type(getattr(node, field))]())


def _turn(node: Any, field: str) -> None:
    setattr(node, field, ast.UnaryOp(ast.Not(), getattr(node, field)))


def tests_of(module: Path) -> list[str]:
    """The test files in the mirrored folder that mention a module, those named after it first."""
    folder = ROOT / "tests" / module.parent.relative_to(ROOT / "domainbed_sage")
    mention = re.compile(rf"\b{module.stem}\b")
    found = [path for path in folder.glob("test_*.py") if mention.search(path.read_text())]
    return [str(path) for path in sorted(found, key=lambda path: (module.stem not in path.stem, path.stem))]


def outcome(module: Path, number: int, tests: Sequence[str]) -> str:
    """Plant the fault of this number in a fork, run the tests there, and say how they ended."""
    pid = os.fork()
    if not pid:
        os.setsid()
        _run(module, number, tests)
    end = time.monotonic() + TIMEOUT_S
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "killed (timeout)"
        time.sleep(0.05)
    return {0: "SURVIVED", 5: "no tests"}.get(os.waitstatus_to_exitcode(ended[1]), "killed")


def _run(module: Path, number: int, tests: Sequence[str]) -> None:
    import pytest

    status = 2
    try:
        tree = ast.parse(module.read_text())
        if number >= 0:
            list(faults(tree))[number].plant()
        code = compile(ast.fix_missing_locations(tree), str(module), "exec")
        get_code: Any = SourceFileLoader.get_code
        replaced: Any = lambda self, name: code if Path(self.path) == module else get_code(self, name)  # noqa: E731
        SourceFileLoader.get_code = replaced  # type: ignore[method-assign]
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        imported = "ignore::pytest.PytestAssertRewriteWarning"  # pytest's plugins, in the process that was forked
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", imported, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def measure(module: Path, numbers: Sequence[int], tests: Sequence[str]) -> Counter[str]:
    """Try these faults of one module and print what became of each."""
    name, found = module.relative_to(ROOT), list(faults(ast.parse(module.read_text())))
    if outcome(module, -1, tests) != "SURVIVED":
        raise SystemExit(f"The tests of {name} fail, or there are none, without any fault: {' '.join(tests) or '-'}")
    counted: Counter[str] = Counter()
    for number in numbers:
        end = outcome(module, number, tests)
        counted[end.split()[0]] += 1
        print(f"{name}:{found[number].line} [{number}] {found[number].text}: {end}", flush=True)
    print(f"== {name}: {counted['killed']} of {counted.total()} killed ({len(found)} faults in all)", flush=True)
    return counted


def main(args: argparse.Namespace) -> None:
    """Sample faults of the modules, try them, and sum up."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for name in WARM:
        importlib.import_module(name)
    places = [place.resolve() for place in args.modules]
    modules = [path for place in places for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    every = [(path, i) for path in modules for i in range(len(list(faults(ast.parse(path.read_text())))))]
    chosen = random.Random(args.seed).sample(every, min(args.sample, len(every)))
    if args.only:
        chosen = [(modules[0], int(number)) for number in args.only.split(",")]
    total: Counter[str] = Counter()
    for path in modules:
        if numbers := sorted(i for of, i in chosen if of == path):
            total += measure(path, numbers, args.tests or tests_of(path))
    print(f"{total['killed']} of {total.total()} killed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="+", type=Path, help="files or folders below domainbed_sage")
    parser.add_argument(
        "--sample", type=int, default=30, help="faults, drawn at random from all (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="numbers of the first module's faults, as an earlier run printed them")
    parser.add_argument("--tests", nargs="+", help="test files, in place of those that mention the module")
    main(parser.parse_args())
