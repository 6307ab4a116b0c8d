"""Throw damaged and invented input at the readers of user files: each should succeed or say what is wrong.

    python scripts/fuzz.py                      every reader, 2,000 examples each
    python scripts/fuzz.py sweep --examples 50000 --seed 7

Anything but a message for the user is reported: a traceback, more than 20 s, more than 2 GB; with the smallest example
that shows it. A further reader is one more entry of `READERS`.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
import traceback
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.resources import shipped
from domainbed_sage.sweeps import sweep
from domainbed_sage.sweeps.cluster import site
from domainbed_sage.sweeps.name import read_name

HANG_S = 20
MEMORY = 2 * 10**9  # bytes
MOST_RUNS = 500  # of a sweep: planning as many as are allowed takes longer than HANG_S

Bytes = st.SearchStrategy[bytes]


@dataclass(frozen=True)
class Reader:
    """Something that reads input from outside.

    Attributes:
        name: what to call it.
        inputs: the examples.
        read: what is to succeed or to raise a `UserError`; the folder is empty before each example.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]


def damaged(text: str) -> Bytes:
    """A good file with some of its lines lost, doubled, moved or replaced, and some bytes changed."""
    lines = text.splitlines()
    numbers = st.integers(0, len(lines) - 1)
    line = st.one_of(numbers.map(lines.__getitem__), st.text(max_size=40), fragments())
    edits = st.lists(st.tuples(st.sampled_from(("drop", "insert", "replace")), numbers, line), min_size=1, max_size=4)
    return st.builds(
        _edit, st.just(lines), edits, st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=2)), max_size=2)
    )


def _edit(lines: Sequence[str], edits: Sequence[tuple[str, int, str]], bites: Sequence[tuple[float, bytes]]) -> bytes:
    edited = list(lines)
    for kind, at, line in edits:
        edited[at : at + (kind != "insert")] = [line] if kind != "drop" else []
    content = "\n".join(edited).encode("utf-8", "surrogatepass")
    for share, bite in bites:
        at = int(share * len(content))
        content = content[:at] + bite + content[at + 1 :]
    return content


def fragments() -> st.SearchStrategy[str]:
    """Pieces of YAML in any order."""
    pieces = (
        *("a: ", "b", "- ", "? ", ": ", "[", "]", "{", "}", ", ", "\n", "  ", "\t", "#", "'", '"', "|\n ", ">-\n "),
        *("&a ", "*a", "<<: ", "!!str ", "!x ", "---\n", "...\n", "%YAML 1.1\n", "\\U0011FFFF", "\ufeff", "\x85"),
        *("0", "010", "1e-6", ".inf", "1:30", "yes", "null", "~", "-", "=", "@", "`", "\r", "\x00", "9" * 400),
    )
    return st.lists(st.sampled_from(pieces), max_size=25).map("".join)


def values() -> st.SearchStrategy[Any]:
    """Anything that can stand in JSON, which YAML reads too."""
    simple = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(simple, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names(), inner, max_size=4))


def names() -> st.SearchStrategy[str]:
    """Names that mean something to the suite, and others."""
    known = ("PACS", "EmojiStyles", "ERM", "SAGE", "small_cnn", "algorithm", "model", "lr", "rho", "hparams", "steps")
    return st.sampled_from(known) | st.text(max_size=10)


def structured(model: Any, good: dict[str, Any]) -> Bytes:
    """Settings of a model by name with invented values, beside some good ones."""
    invented = st.dictionaries(st.sampled_from(tuple(model.model_fields)) | names(), values(), max_size=4)

    def write(new: dict[str, Any], keep: bool, escaped: bool) -> bytes:
        text = json.dumps({**(good if keep else {}), **new}, ensure_ascii=escaped)
        return text.encode("utf-8", "surrogatepass")

    return st.builds(write, invented, st.booleans(), st.booleans())


def files_like(text: str, model: Any, good: dict[str, Any]) -> Bytes:
    """Files of settings: damaged, invented, and no files of settings at all."""
    encoded = st.tuples(st.text(), st.sampled_from(("utf-8", "utf-16", "latin-1"))).map(
        lambda pair: pair[0].encode(pair[1], "replace")
    )
    pieces = fragments().map(str.encode)
    return st.one_of(damaged(text), structured(model, good), pieces, encoded, st.binary(max_size=200))


def _read_sweep(content: bytes, folder: Path) -> None:
    path = folder / "s.yaml"
    path.write_bytes(content)
    with suppress(UserError):
        read_name(path)
    with mock.patch.object(sweep, "MOST_RUNS", MOST_RUNS):
        sweep.read_sweep(path).planned()


def _read_site(content: bytes, folder: Path) -> None:
    path = folder / "s.yaml"
    path.write_bytes(content)
    parser = argparse.ArgumentParser()
    site.add_arguments(parser)
    site.from_arguments(parser.parse_args(["--site", str(path)])).sbatch("name")


_GOOD_SWEEP = {"name": "s", "datasets": ["PACS"], "algorithms": {"ERM": {}, "a": {"algorithm": "SAGE"}}, "trials": 1}
READERS = (
    Reader("sweep", files_like(shipped("sweeps/demo.yaml").read_text(), sweep.Sweep, _GOOD_SWEEP), _read_sweep),
    Reader("site", files_like(shipped("sweeps/cluster/a100_mig.yaml").read_text(), site.Site, {}), _read_site),
)


class Hang(BaseException):
    """An example takes too long; a BaseException, because readers may catch every Exception."""


def check(reader: Reader, examples: int, seed_value: int = 0) -> None:
    """Try a reader on this many examples.

    Raises:
        BaseException: what it raised, if that is no `UserError`; an AssertionError where it takes too long or too much.
    """

    @seed(seed_value)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(reader.inputs)
    def one(example: Any) -> None:
        with tempfile.TemporaryDirectory() as folder, _limits(reader.name):
            try:
                reader.read(example, Path(folder))
            except UserError as error:
                if not str(error).strip():
                    raise AssertionError("a message without words") from error

    one()


@contextmanager
def _limits(name: str) -> Iterator[None]:
    def overdue(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < MEMORY, f"{name} takes {peak / 1e9:.1f} GB"
    except Hang:
        raise AssertionError(f"{name} takes longer than {HANG_S} s") from None
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(args: argparse.Namespace) -> int:
    """Try the readers; 1 where one failed."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MEMORY,) * 2)
    failed = []
    for reader in READERS:
        if reader.name in args.readers:
            try:
                check(reader, args.examples, args.seed)
                print(f"{reader.name}: {args.examples:,} examples, no complaint", flush=True)
            except Exception:
                traceback.print_exc()
                failed.append(reader.name)
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [reader.name for reader in READERS]
    parser.add_argument("readers", nargs="*", default=known, metavar="READER", help=f"of {', '.join(known)}; all")
    parser.add_argument("--examples", type=int, default=2000, help="of each reader (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    if unknown := set(parsed.readers) - set(known):
        parser.error(f"no reader {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    sys.exit(main(parsed))
