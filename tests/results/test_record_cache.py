"""The cache of records: the same runs as a first reading, and nothing that is no longer true."""

import json
import logging
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import folder as results_folder
from domainbed_sage.results import record_cache
from domainbed_sage.results.folder import load_records


@pytest.fixture(autouse=True)
def any_number_of_runs(monkeypatch):
    monkeypatch.setattr(record_cache, "MIN_RUNS", 1)


def write(folder, name, *, env=0, algorithm="ERM", steps=(0, 300), accuracy=0.5, environments=("a", "b"), done=True):
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    args = {"dataset": "PACS", "algorithm": algorithm, "test_envs": [env], "trial_seed": 0, "hparams_seed": 0}
    args |= {"label": f"{algorithm} of {name}", "model": "small_cnn", "optimizer": "adam", "precision": "tf32"}
    args |= {"steps": steps[-1] + 1, "holdout_fraction": 0.25}
    lines = [
        {
            "args": args,
            "hparams": {"lr": 1e-5, "name": name},
            "environments": list(environments),
            "data": {"variant": "24788"},
            "versions": {"torch": "2.14"},
            "device": f"cuda:{step > 0:d}",
            "step": step,
            "loss": step / 7,
            **{f"env{e}_{half}_acc": accuracy + e / 10 for e in range(len(environments)) for half in ("in", "out")},
        }
        for step in steps
    ]
    (path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if done:
        (path / "done").touch()
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "one")
    write(tmp_path, "two", env=1, steps=(0, 300, 600), accuracy=float("nan"))
    write(tmp_path, "three", algorithm="SAGE", steps=(0,))
    write(tmp_path, "open", algorithm="SAM", done=False)
    (tmp_path / "notes").mkdir()
    return tmp_path


@pytest.fixture
def parsed(monkeypatch):
    """Names of the runs whose text was parsed."""
    names, parse = [], results_folder.parse_run
    monkeypatch.setattr(results_folder, "parse_run", lambda path: names.append(path.parent.name) or parse(path))
    return names


def same(ours, theirs):
    for name in ours.__dataclass_fields__:
        a, b = getattr(ours, name), getattr(theirs, name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        else:
            assert a == b


def test_second_reading_is_the_first(folder, parsed):
    first = load_records(folder)
    assert sorted(parsed) == ["one", "three", "two"]
    parsed.clear()
    second = load_records(folder)
    assert parsed == []
    assert [r.name for r in second.records] == [r.name for r in first.records] == ["one", "three", "two"]
    for ours, theirs in zip(second.records, first.records, strict=True):
        same(ours, theirs)
    assert (second.unfinished, second.empty, second.notes()) == (first.unfinished, first.empty, first.notes())


def test_only_what_changed_is_read_again(folder, parsed):
    load_records(folder)
    parsed.clear()
    path = write(folder, "two", env=1, accuracy=0.25) / "results.jsonl"
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    (folder / "open" / "done").touch()
    found = {r.name: r for r in load_records(folder).records}
    assert sorted(parsed) == ["open", "two"]
    assert found["two"].in_acc[0, 0] == 0.25
    parsed.clear()
    assert len(load_records(folder).records) == 4
    assert parsed == []


@pytest.mark.parametrize("accuracy", [0.3, 0.25])
def test_a_file_of_another_time_or_of_another_size_is_read_again(folder, parsed, accuracy):
    path = folder / "one" / "results.jsonl"
    before, done = path.stat(), (folder / "one" / "done").stat()
    load_records(folder)
    parsed.clear()
    write(folder, "one", accuracy=accuracy)
    same_size = path.stat().st_size == before.st_size
    os.utime(path, ns=(1, before.st_mtime_ns + same_size))
    os.utime(folder / "one" / "done", ns=(1, done.st_mtime_ns))
    assert same_size == (accuracy == 0.3)
    (one,) = (r for r in load_records(folder).records if r.name == "one")
    assert one.in_acc[0, 0] == accuracy
    assert parsed == ["one"]


def test_a_run_without_its_marker_is_unfinished_whatever_the_cache_says(folder, parsed):
    load_records(folder)
    (folder / "one" / "done").unlink()
    parsed.clear()
    loaded = load_records(folder)
    assert [r.name for r in loaded.records] == ["three", "two"]
    assert loaded.unfinished == ("one", "open")
    assert parsed == []
    assert len(load_records(folder, include_unfinished=True).records) == 4
    assert sorted(parsed) == ["one", "open"]


def test_a_marker_that_was_written_again_counts_as_another_run(folder, parsed):
    load_records(folder)
    parsed.clear()
    done = folder / "two" / "done"
    os.utime(done, ns=(1, done.stat().st_mtime_ns + 1))
    assert len(load_records(folder).records) == 3
    assert parsed == ["two"]


def test_torn_last_line_is_reported_at_every_reading(folder, parsed, caplog):
    path = folder / "two" / "results.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 900, "env')
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert len(load_records(folder).records) == 3
        assert caplog.messages == [f'{path}: dropped the torn last line 4: b\'{{"step": 900, "env\'']
    assert parsed.count("two") == 1


def test_removed_runs_are_gone(folder):
    load_records(folder)
    shutil.rmtree(folder / "one")
    assert [r.name for r in load_records(folder).records] == ["three", "two"]


def test_unfinished_runs_are_read_each_time(folder, parsed):
    for _ in range(2):
        assert len(load_records(folder, include_unfinished=True).records) == 4
    assert parsed.count("open") == 2
    assert len(load_records(folder).records) == 3


DAMAGES = {
    "cut": lambda b: b[:-100],
    "empty": lambda b: b"",
    "of another kind": lambda b: b[:-4] + b"PAR3",
    "another name": lambda b: b.replace(b"three", b"there", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_costs_one_reading(folder, parsed, caplog, damage):
    load_records(folder)
    path = folder / record_cache.FILE
    before = path.read_bytes()
    path.write_bytes(DAMAGES[damage](before))
    assert path.read_bytes() != before
    parsed.clear()
    for _ in range(2):
        assert {r.in_acc[0, 0] for r in load_records(folder).records if r.name != "two"} == {0.5}
    assert sorted(parsed) == ["one", "three", "two"]
    (message,) = caplog.messages
    assert message.startswith(f"{path} is damaged (")
    assert message.endswith("; reading every run again.")


def test_cache_of_another_version(folder, parsed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(record_cache, "VERSION", "0")
        load_records(folder)
    parsed.clear()
    load_records(folder)
    assert len(parsed) == 3


def test_mistakes_are_found_in_cached_runs_too(folder):
    load_records(folder)
    shutil.copytree(folder / "one", folder / "copy")
    with pytest.raises(UserError, match="hold the same run"):
        load_records(folder)
    with pytest.raises(UserError, match="hold the same run"):
        load_records(folder)


def test_a_folder_that_cannot_be_written_to_keeps_none(folder, monkeypatch):
    @contextmanager
    def refused(path):
        raise UserError(f"Cannot write {path}: Permission denied.")
        yield

    monkeypatch.setattr(record_cache, "atomic", refused)
    for _ in range(2):
        assert len(load_records(folder).records) == 3
    assert not (folder / record_cache.FILE).exists()


def test_equal_texts_are_kept_once(folder):
    load_records(folder)
    for _ in range(2):
        one, two = (r for r in load_records(folder).records if r.name in ("one", "two"))
        for name in ("dataset", "algorithm", "model", "versions", "environments"):
            assert getattr(one, name) is getattr(two, name)
        shutil.rmtree(folder / "three", ignore_errors=True)


def test_few_runs_are_not_worth_a_file(folder, monkeypatch):
    monkeypatch.setattr(record_cache, "MIN_RUNS", 4)
    load_records(folder)
    assert not (folder / record_cache.FILE).exists()


def test_many_runs_are_read_by_several_processes(folder, monkeypatch):
    alone = load_records(folder, include_unfinished=True)
    (folder / record_cache.FILE).unlink()
    monkeypatch.setattr(results_folder, "PARALLEL_FROM", 1)
    monkeypatch.setattr(results_folder, "CHUNK", 1)
    together = load_records(folder, include_unfinished=True)
    for ours, theirs in zip(together.records, alone.records, strict=True):
        same(ours, theirs)
    assert len({id(r.dataset) for r in together.records}) == 1
    (folder / "two" / "results.jsonl").write_text("{\n{}\n")
    ((name, reason),) = load_records(folder).unreadable
    assert name == "two"
    assert "two/results.jsonl, line 1, is not a JSON object" in reason
