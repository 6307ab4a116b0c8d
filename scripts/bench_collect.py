"""How long a table, and a look at where a sweep stands, take on many runs.

    python scripts/bench_collect.py [--runs 100000] [--domainbed CHECKOUT --domainbed_runs 5000] [--json FILE]

Makes a results folder of finished runs in DomainBed's record format (18 evaluations each, provenance included), then
measures, each in a process of its own: the first table (every record is parsed), the second (from the cache), and the
status of the sweep, first and second look. With a DomainBed checkout, its own collect_results reads another folder of
fewer runs, and ours the same folder without a cache; seconds per run are compared.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from domainbed_sage.config import RunConfig
from domainbed_sage.sweeps.sweep import Sweep

EVALUATIONS = 18
ALGORITHMS = ("ERM", "SAM", "SAGM", "DISAM", "GGA", "SAGE")
TABLE = "from domainbed_sage.cli import main; main(['table', {folder!r}, '--out', {out!r}])"
STATUS = """
from pathlib import Path
from bench_collect import sweep_of
from domainbed_sage.sweeps.cluster.survey import survey
runs = sweep_of({runs})
import time; began = time.perf_counter()
print(survey(runs, Path({folder!r})).counts())
print('looking:', time.perf_counter() - began)
"""


def sweep_of(runs: int) -> list[RunConfig]:
    """The first runs of a sweep over PACS with as many hyperparameter settings as that takes."""
    settings = -(-runs // (len(ALGORITHMS) * 4 * 3))
    algorithms = dict.fromkeys(ALGORITHMS)
    sweep = Sweep(name="bench", datasets={"PACS": None}, algorithms=algorithms, n_hparams=settings, trials=3)
    return sweep.runs()[:runs]


def records(config: RunConfig) -> str:
    """The text of a results file: the keys and lengths of real ones, random accuracies."""
    rng = np.random.default_rng(config.seed)
    args = config.model_dump(mode="json", exclude={"hparams"}) | {"hparams": json.dumps(config.hparams)}
    facts = {
        "args": args,
        "hparams": config.hparams,
        "environments": ["art_painting", "cartoon", "photo", "sketch"],
        "data": {"variant": "", "notes": []},
        "weights": {"name": "openai", "sha256": "0" * 64},
        "versions": {"python": "3.11", "torch": "2.14.1", "torchvision": "0.29.1", "numpy": "2.4"},
        "device": "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
    }
    lines = []
    for i, accuracies in enumerate(rng.random((EVALUATIONS, 8)).tolist()):
        named = {f"env{e}_{half}_acc": accuracies[2 * e + h] for e in range(4) for h, half in enumerate(("in", "out"))}
        lines.append(json.dumps({"step": 300 * i, "epoch": i * 0.1, "loss": 1.0, "step_time": 0.2, **named, **facts}))
    return "\n".join(lines) + "\n"


def make_one(config: RunConfig, folder: Path) -> None:
    """Write one finished run."""
    path = folder / config.folder_name
    path.mkdir()
    (path / "results.jsonl").write_text(records(config))
    (path / "done").write_text("done")


def make(runs: list[RunConfig], folder: Path) -> float:
    """Write all runs; GB."""
    folder.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(make_one, runs, [folder] * len(runs), chunksize=500))
    return sum(f.stat().st_size for f in islice(folder.glob("*/results.jsonl"), 100)) / 100 * len(runs) / 1e9


def timed(code: str, cwd: Path | None = None) -> dict[str, float | str]:
    """Seconds, peak memory and output of Python code in a process of its own."""
    began = time.perf_counter()
    code += "\nimport resource; print('peak:', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        sys.exit(done.stderr)
    out = done.stdout.splitlines()
    return {"seconds": time.perf_counter() - began, "peak_gb": int(out[-1].split()[1]) / 1e6, "said": out[-2]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--domainbed", type=Path, help="a checkout of DomainBed")
    parser.add_argument("--domainbed_runs", type=int, default=5000)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--folder", type=Path, help="where to make the runs (default: a temporary folder)")
    args = parser.parse_args()
    figures: dict[str, object] = {"runs": args.runs, "evaluations": EVALUATIONS}
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        root = Path(temporary)
        began = time.perf_counter()
        runs = sweep_of(args.runs)
        figures["planning_s"] = time.perf_counter() - began
        figures["gb"] = make(runs, root / "many")
        here = Path(__file__).parent
        table = TABLE.format(folder=str(root / "many"), out=str(root / "out"))
        status = STATUS.format(folder=str(root / "many"), runs=args.runs)
        for name, code in (("status 1", status), ("status 2", status), ("table 1", table), ("table 2", table)):
            figures[name] = timed(code, here)
            print(name, figures[name], flush=True)
        shutil.rmtree(root / "many")
        if args.domainbed:
            figures |= against_domainbed(args, root)
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def against_domainbed(args: argparse.Namespace, root: Path) -> dict[str, object]:
    """Both collect the same folder, in turn, twice; medians would say no more of so few."""
    make(sweep_of(args.domainbed_runs), root / "few")
    theirs = (
        f"import sys; sys.argv = ['collect_results', '--input_dir', {str(root / 'few')!r}]; import runpy; "
        "runpy.run_module('domainbed.scripts.collect_results', run_name='__main__')"
    )
    ours = TABLE.format(folder=str(root / "few"), out=str(root / "out"))
    seconds: dict[str, list[float]] = {"ours": [], "domainbed": []}
    for name, code, cwd in (("ours", ours, None), ("domainbed", theirs, args.domainbed)) * 2:
        (root / "few" / "records.parquet").unlink(missing_ok=True)
        seconds[name].append(float(timed(code, cwd)["seconds"]))
        print(name, seconds[name][-1], flush=True)
    ratio = min(seconds["domainbed"]) / min(seconds["ours"])
    return {"domainbed_runs": args.domainbed_runs, "seconds": seconds, "domainbed / ours": ratio}


if __name__ == "__main__":
    main()
