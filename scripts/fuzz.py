"""Throw damaged and invented input at the readers of user files: each should succeed or say what is wrong.

    python scripts/fuzz.py                      every reader, 2,000 examples each
    python scripts/fuzz.py sweep --examples 50000 --seed 7

Reported is whatever is no message for the user: a traceback, more than 20 s, more than 2 GB, and what is accepted
although it cannot be right; with the smallest example that shows it. The readers are in `scripts/fuzzing/`, a module
for each kind of input; a further one is one more entry of its `READERS`. CI tries each on a few examples.
"""

import argparse
import logging
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fuzzing import data, flags, lists, plugins, results, run_files, written
from fuzzing.reader import Reader
from hypothesis import HealthCheck, Phase, given, seed, settings

from domainbed_sage.core.errors import UserError

HANG_S = 20
MEMORY = 2 * 10**9  # bytes
PHASES = (Phase.explicit, Phase.generate, Phase.shrink)  # explanations of a failure take minutes
HASTE = settings(deadline=None, database=None, phases=PHASES, suppress_health_check=list(HealthCheck))
READERS = tuple(
    reader for module in (written, flags, results, run_files, data, lists, plugins) for reader in module.READERS
)


class Hang(BaseException):
    """An example takes too long; a BaseException, because readers may catch every Exception."""


def check(reader: Reader, examples: int, seed_value: int = 0) -> None:
    """Try a reader on this many examples.

    Raises:
        BaseException: what it raised, if that is no `UserError`; an AssertionError where it takes too long or too much.
    """

    @seed(seed_value)
    @settings(HASTE, max_examples=examples)
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
    late = []

    def overdue(*_: object) -> None:
        late.append(True)
        raise Hang

    before = signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    held = _most_resident(since_now=True)
    try:
        yield
        if late:  # and something caught it
            raise Hang
        peak = _most_resident() - held
        assert peak < MEMORY, f"{name} takes {peak / 1e9:.1f} GB"
    except Hang:
        raise AssertionError(f"{name} takes longer than {HANG_S} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _most_resident(*, since_now: bool = False) -> int:
    """The most memory that this process has had, bytes; `since_now` forgets what it had before."""
    if since_now:
        with suppress(OSError):  # some containers forbid it
            Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def main(args: argparse.Namespace) -> int:
    """Try the readers; 1 where one failed."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MEMORY,) * 2)
    failed = []
    for reader in READERS:
        if reader.name in args.readers:
            began = time.monotonic()
            try:
                check(reader, args.examples, args.seed)
                seconds = time.monotonic() - began
                print(f"{reader.name}: {args.examples:,} examples, {seconds:.0f} s, no complaint", flush=True)
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
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.exit(main(parsed))
