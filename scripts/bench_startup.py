"""Time what should be fast: help, usage errors, a look at a planned sweep, and the table of a folder read before.

    python scripts/bench_startup.py [--rounds 5] [--before CHECKOUT] [--json FILE]

Every command is a whole process. The commands take turns, so that a slow minute hits all of them, and medians are
printed beside their ratio to `python -c pass`. With an older checkout, its commands take turns with ours. The sweep is
`sweeps/table1.yaml`, planned but not run; the results folder holds 1,122 finished runs of 18 evaluations.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench_collect import make, sweep_of

ROOT = Path(__file__).resolve().parents[1]
RUNS = 1122
LOAD = "import domainbed_sage as d; print(len(d.load_results({folder!r})))"


def commands(folder: Path) -> dict[str, list[str]]:
    """What is timed, by a short name."""
    program, sweep = ["-m", "domainbed_sage"], [str(ROOT / "sweeps" / "table1.yaml")]
    out = ["--output_dir", str(folder / "table1")]
    results = str(folder / "results")
    return {
        "python -c pass": ["-c", "pass"],
        "import domainbed_sage": ["-c", "import domainbed_sage"],
        "--help": [*program, "--help"],
        "train --help": [*program, "train", "--help"],
        "a typo": [*program, "swep"],
        "sweep list": [*program, "sweep", "list", *sweep, *out],
        "sweep status": [*program, "sweep", "status", *sweep, *out],
        "sweep cancel": [*program, "sweep", "cancel", *sweep, *out],
        "table, read before": [*program, "table", results, "--out", str(folder / "tables")],
        "load_results, read before": ["-c", LOAD.format(folder=results)],
    }


def timed(words: list[str], checkout: Path) -> float:
    """Seconds of one process."""
    environ = {**os.environ, "PYTHONPATH": str(checkout)}
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], env=environ, capture_output=True, check=False, cwd=checkout)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="an older checkout to compare with")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        places = {"": (ROOT, Path(temporary) / "new")}
        if args.before:
            places[" (before)"] = (args.before.resolve(), Path(temporary) / "old")
        first: dict[str, float] = {}
        for suffix, (checkout, folder) in places.items():
            make(sweep_of(RUNS), folder / "results")
            (folder / "table1").mkdir()
            for name, words in commands(folder).items():  # the first time: plans the sweep, reads the records
                first[name + suffix] = timed(words, checkout)
            shutil.rmtree(folder / "tables", ignore_errors=True)
        for _ in range(args.rounds):
            for suffix, (checkout, folder) in places.items():
                for name, words in commands(folder).items():
                    seconds.setdefault(name + suffix, []).append(timed(words, checkout))
    floor = median(seconds["python -c pass"])
    print(f"{'':36}{'first':>8}{'median':>8}{'/ pass':>8}")
    for name, values in sorted(seconds.items()):
        print(f"{name:36}{first[name]:8.2f}{median(values):8.2f}{median(values) / floor:8.1f}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"Most memory of a process: {peak:.2f} GB")
    if args.json:
        args.json.write_text(json.dumps({"first": first, "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
