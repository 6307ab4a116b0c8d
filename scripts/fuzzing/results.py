"""What a results folder holds: records, plans, names, the cache, and notes of what was submitted."""

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import planned, record_cache, render, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.records import run_record
from domainbed_sage.sweeps.cluster import ledger
from fuzzing.damage import DAMAGES, DEEP, NUMBERS, ODD_NAMES, TEXTS, VALUES, Damage, changed, damaged, damaged_text
from fuzzing.reader import Reader, repeats

ENVIRONMENTS = ("noto", "openmoji", "twemoji")


def _record(step: int = 0, algorithm: str = "ERM", env: int = 0, trial: int = 0) -> dict[str, Any]:
    args = {"dataset": "Own", "algorithm": algorithm, "test_envs": [env], "trial_seed": trial, "hparams_seed": 0}
    args |= {"label": algorithm, "model": "small_cnn", "optimizer": "adam", "precision": "fp32", "steps": 4}
    accuracies = {f"env{i}_{half}_acc": 0.5 for i in range(3) for half in ("in", "out")}
    named = {"environments": list(ENVIRONMENTS), "data": {"variant": ""}, "versions": {"torch": "2"}, "device": "cpu"}
    hparams = {"lr": 1e-3, "batch_size": 2}
    args["holdout_fraction"] = 0.2
    return {"step": step, "loss": 1.0, "args": args, "hparams": hparams, "commit": "abc"} | accuracies | named


def _lines(records: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def _plant(results: Path, name: str, content: bytes, *, done: bool = True) -> Path:
    run = results / name
    run.mkdir(parents=True)
    (run / "results.jsonl").write_bytes(content)
    if done:
        (run / "done").write_text("done")
    return run


def _show(results: Path) -> dict[str, str]:
    """The table of a folder, in every format."""
    loaded = load_records(results, include_unfinished=True)
    table = tables.build(loaded.records, "oracle", expected=loaded.planned, notes=loaded.notes())
    return {write.__name__: write(table) for write in (render.text, render.markdown, render.latex)}


# Records


def _records() -> st.SearchStrategy[tuple[bytes, bool]]:
    whole = [_record(0), _record(3)]
    some = st.tuples(*(changed(record, VALUES | NUMBERS) for record in whole)).map(_lines)
    one = changed(whole[1], VALUES | NUMBERS).map(lambda last: _lines([whole[0], last]))
    doubled = st.sampled_from([b'"step"', b'"loss"', b'"args"', b'"env0_in_acc"', b'"dataset"', b'"steps"']).flatmap(
        lambda key: VALUES.map(
            lambda value: _lines(whole).replace(key, key + b": " + json.dumps(value).encode() + b", " + key, 1)
        )
    )
    deep = DEEP.map(lambda content: _lines(whole[:1]) + content + b"\n")
    contents = some | one | one | doubled | damaged_text(_lines(whole).decode()) | TEXTS | deep
    return st.tuples(contents, st.booleans())


def _read_records(example: tuple[bytes, bool], folder: Path) -> None:
    content, done = example
    _plant(folder, "good", _lines([_record(0, env=1), _record(3, env=1)]))
    _plant(folder, "odd", content, done=done)
    _show(folder)
    for run in load_records(folder, include_unfinished=True).records:
        lines = [line for line in (folder / run.name / "results.jsonl").read_bytes().split(b"\n") if line.strip()]
        kept = lines[: len(run.steps)]
        assert not any(map(repeats, kept)), "of two values of one name, one was dropped"
        assert len(lines) - len(kept) <= 1, "lines were passed over"
        _assert_possible(kept)


def _assert_possible(lines: Sequence[bytes]) -> None:
    records = [json.loads(line) for line in lines]
    accuracies = [value for record in records for key, value in record.items() if key.endswith("_acc")]
    known = [value for value in accuracies if value is not None and value == value]
    assert all(type(value) in (int, float) and 0 <= value <= 1.00001 for value in known)
    steps = [record["step"] for record in records]
    assert steps == sorted(set(steps)), "steps that do not ascend were taken"


# Plans


def _run(env: int = 0) -> list[Any]:
    return [f"run{env}", "ERM", "Own", "ERM", [env], 0, 4]


_PLAN = {"version": 2, "sweeps": {"s": {"fingerprint": "abc", "runs": [_run(0), _run(1)]}}}
_FORMER = {"runs": [["Own", "ERM", [0], 0], ["Own", "ERM", [1], 0]]}


def _plans() -> st.SearchStrategy[bytes]:
    invented = VALUES | NUMBERS | st.lists(NUMBERS, max_size=2)
    ours = changed(_PLAN, invented).map(json.dumps)
    former = changed(_FORMER, invented).map(lambda plan: json.dumps(plan.get("runs")))
    doubled = st.sampled_from(['"sweeps"', '"version"', '"s"', '"runs"']).map(
        lambda key: json.dumps(_PLAN).replace(key, f"{key}: {{}}, {key}", 1)
    )
    other = NUMBERS.map(
        lambda env: json.dumps({"version": 2, "sweeps": {"s": {**_PLAN["sweeps"]["s"], "runs": [_run(env)]}}})
    )
    return (ours | former | doubled | other).map(str.encode) | TEXTS | damaged_text(json.dumps(_PLAN, indent=1))


def _read_plan(content: bytes, folder: Path) -> None:
    _plant(folder, "good", _lines([_record(0), _record(3)]))
    (folder / planned.FILE).write_bytes(content)
    try:
        plans = planned.read(folder)
    except UserError:
        _show(folder)  # the table comes without the plan
        raise
    assert not repeats(content), "of two values of one name, one was dropped"
    for plan in plans.values():
        for run in plan.runs:
            assert all(0 <= env < 10**4 for env in run.test_envs), "a run without a possible environment was taken"
    _show(folder)


# Names


def _names() -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries(dict.fromkeys(("dataset", "algorithm", "label", "env", "run"), ODD_NAMES))


def _read_names(example: dict[str, str], folder: Path) -> None:
    record = _record(3)
    record["args"] |= {name: example[name] for name in ("dataset", "algorithm", "label")}
    record["environments"] = [example["env"], *ENVIRONMENTS[1:]]
    name = example["run"].replace("/", "").replace("\0", "")[:60] or "run"
    try:
        run = _plant(folder / "r", "x" * (name in (".", "..")) + name, _lines([record]))
    except (OSError, UnicodeEncodeError):  # no name of a folder
        return
    shown = _show(run.parent)
    assert all(character == "\n" or character.isprintable() for text in shown.values() for character in text)
    for block in shown["markdown"].split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1, "a row has more cells than its head"


# The cache and the ledger: both are written by the suite


@functools.cache
def _cache() -> tuple[bytes, dict[str, str]]:
    """The cache of two runs, and what it should say."""
    records = [_record(0), _record(3)]
    with tempfile.TemporaryDirectory() as name, mock.patch.object(record_cache, "MIN_RUNS", 1):
        runs = {run: run_record(Path(name, run), records) for run in ("run0", "run1")}
        cached = {run: record_cache.Cached(record_cache.Stamp(7, 8, 9), record) for run, record in runs.items()}
        record_cache.write(Path(name), cached)
        return Path(name, record_cache.FILE).read_bytes(), {run: str(entry) for run, entry in cached.items()}


def _read_cache(damage: Damage, folder: Path) -> None:
    content, expected = _cache()
    (folder / record_cache.FILE).write_bytes(damaged(content, damage))
    found = {run: str(entry) for run, entry in record_cache.read(folder).items()}
    assert found in ({}, expected), "the cache says something else"


_ARRAY = {"name": "a-1", "tasks": [["run0"], ["run1", "run2"]], "ids": ["7_0", "7_1"], "user": "me", "host": "h"}


def _arrays() -> st.SearchStrategy[bytes]:
    whole = _ARRAY | {"when": 1.5}
    return changed(whole, VALUES | NUMBERS).map(lambda facts: json.dumps(facts).encode()) | TEXTS


def _read_ledger(content: bytes, folder: Path) -> None:
    path = folder / ledger.JOBS / "a-1" / "array.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    for array in ledger.read(folder):
        assert all(isinstance(text, str) for text in (array.name, array.user, array.host, *array.ids))
        assert all(isinstance(run, str) for task in array.tasks for run in task)
        assert not array.ids or len(array.ids) == len(array.tasks), "jobs without runs were taken"
        list(array.jobs({}))


READERS = (
    Reader("records", _records(), _read_records),
    Reader("plan", _plans(), _read_plan),
    Reader("names", _names(), _read_names),
    Reader("record cache", DAMAGES, _read_cache),
    Reader("ledger", _arrays(), _read_ledger),
)
