"""The folder of a run: whose it is, and what becomes of damaged files and full disks."""

import json
import logging
import resource

import pytest
import torch
from helpers import assert_same, hold_lock, records, run, small_config

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import temporary_name
from domainbed_sage.training.run_folder import RunFolder


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def files(folder):
    """Everything in a folder but the lock: time of change and content."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.name != "lock"}


# Whose folder it is


def test_folder_in_use(tmp_path):
    process = hold_lock(tmp_path / "run")
    try:
        message = rf"run is in use by process {process.pid} on .*Two runs never write to one folder.*--output_dir"
        with pytest.raises(UserError, match=message):
            run(small_config(), tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    finally:
        process.kill()
        process.join()
    assert run(small_config(steps=1), tmp_path / "run").joinpath("done").exists()


def test_folder_of_another_run(begun):
    before = files(begun)
    other = small_config(steps=9, seed=1, hparams={"lr": 0.5})
    message = r"holds another run; it differs in: (?=.*seed 0 → 1)(?=.*steps 6 → 9)(?=.*'lr': 0.001.* → .*'lr': 0.5)"
    with pytest.raises(UserError, match=message) as caught:
        run(other, begun)
    assert str(begun) in str(caught.value)
    assert "algorithm" not in str(caught.value)
    assert files(begun) == before


@pytest.mark.parametrize("name", ["results.jsonl", "checkpoint.pt", "done"])
def test_files_of_unknown_origin(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"holds results but no run\.json, so they are not this run's.*--output_dir"):
        run(small_config(), tmp_path)
    assert (tmp_path / name).read_text() == ""


@pytest.mark.parametrize("content", ["{", "[]", '{"dataset": "PACS"}', '{"algorithm": "Foo"}'])
def test_unreadable_description(begun, content):
    (begun / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json is not a readable description of a run"):
        run(small_config(), begun)


def test_description_names_an_unknown_algorithm(begun):
    values = json.loads((begun / "run.json").read_text())
    (begun / "run.json").write_text(json.dumps(values | {"algorithm": "Foo"}))
    with pytest.raises(UserError, match=r"run\.json.*Unknown algorithm 'Foo'.*ERM"):
        run(small_config(), begun)


def test_output_dir_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"Cannot write .*file: File exists\. Choose another folder"):
        run(small_config(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_finished_run_is_left_alone(tmp_path):
    before = files(run(small_config(steps=1), tmp_path))
    assert files(run(small_config(steps=1), tmp_path)) == before


def test_finished_run_is_cleaned(tmp_path):
    """It may have been killed between `done` and cleaning."""
    before = files(run(small_config(steps=1), tmp_path))
    for name in ("checkpoint.pt", "checkpoint.pt.tmp", "model.pkl.tmp", "progress.json", "progress.json.tmp"):
        (tmp_path / name).write_text("")
    assert files(run(small_config(steps=1), tmp_path)) == before


# Damage


def test_checkpoint_is_plain_data(begun):
    state = checkpoint(begun)
    assert (state["step"], state["recorded"]) == (4, 2)
    assert set(state["algorithm"]) == {"model", "optimizer", "perturbation_cosine", "perturbation_size"}


@pytest.mark.parametrize("tail", [b'{"step": 3, "env0', b"\xff\x00", b'{"step": 5}\n{"st'])
def test_torn_last_line(begun, undisturbed, tail):
    with (begun / "results.jsonl").open("ab") as file:
        file.write(tail)
    assert_same(run(small_config(), begun), undisturbed)


@pytest.mark.parametrize("line", [1, 2])
def test_torn_line_in_the_middle(begun, line):
    lines = (begun / "results.jsonl").read_text().splitlines()
    lines[line - 1] = lines[line - 1][:40]
    (begun / "results.jsonl").write_text("\n".join([*lines, "{}"]) + "\n")
    with pytest.raises(UserError, match=rf"results\.jsonl, line {line}, is not a JSON object.*run it again"):
        run(small_config(), begun)
    assert checkpoint(begun)["step"] == 4


@pytest.mark.parametrize("size", [0, 1000, -1])
def test_truncated_checkpoint(begun, undisturbed, caplog, size):
    content = (begun / "checkpoint.pt").read_bytes()
    (begun / "checkpoint.pt").write_bytes(content[:size])
    (begun / "checkpoint.previous.pt").unlink()
    with caplog.at_level(logging.WARNING):
        run(small_config(), begun)
    assert any("checkpoint.pt is damaged" in m and "starting over from step 0" in m for m in caplog.messages)
    assert_same(begun, undisturbed)
    assert (begun / "checkpoint.damaged").read_bytes() == content[:size]


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_torn_checkpoint_falls_back_to_the_one_before(begun, undisturbed, caplog, position):
    """One flipped bit in a tensor: the file still opens, and only its checksum tells."""
    content = bytearray((begun / "checkpoint.pt").read_bytes())
    content[int(position * len(content))] ^= 1
    (begun / "checkpoint.pt").write_bytes(content)
    before = torch.load(begun / "checkpoint.previous.pt", weights_only=True)["step"]
    with caplog.at_level(logging.INFO):
        run(small_config(), begun)
    assert any("checkpoint.pt is damaged" in m and "taking the checkpoint before it" in m for m in caplog.messages)
    assert f"Continuing at step {before}." in caplog.messages
    assert_same(begun, undisturbed)


def test_a_device_in_trouble_does_not_cost_the_checkpoints(begun, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            run(small_config(), begun)
    assert checkpoint(begun)["step"] == 4
    assert len(records(begun)) == 2
    assert_same(run(small_config(), begun), undisturbed)


def test_checkpoints_are_kept_if_asked_for(tmp_path, undisturbed):
    for _ in range(2):
        run(small_config(), tmp_path / "run", keep_checkpoint=True)
    assert checkpoint(tmp_path / "run")["step"] == 6
    (tmp_path / "run" / "checkpoint.pt").unlink()
    (tmp_path / "run" / "checkpoint.previous.pt").unlink()
    assert_same(tmp_path / "run", undisturbed)


def test_reason_of_a_failure_is_left_and_goes_with_the_next_start(begun, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(small_config(), begun)
    facts = json.loads((begun / "failed.json").read_text())
    assert (facts["kind"], facts["reason"]) == ("ZeroDivisionError", "ZeroDivisionError: division by zero")
    assert_same(run(small_config(), begun), undisturbed)


@pytest.mark.parametrize("keep", [None, 0, 1])
def test_lost_records(begun, undisturbed, caplog, keep):
    """Without this a run would end with a gap that nobody sees."""
    lines = (begun / "results.jsonl").read_text().splitlines(keepends=True)
    if keep is None:
        (begun / "results.jsonl").unlink()
    else:
        (begun / "results.jsonl").write_text("".join(lines[:keep]))
    with caplog.at_level(logging.WARNING):
        run(small_config(), begun)
    messages = [m for m in caplog.messages if "counts on" in m]
    assert f"counts on 2 records, and {begun / 'results.jsonl'} has {keep or 0}" in messages[0]
    assert "taking the checkpoint before it" in messages[0]
    assert len(messages) == 1 or "starting over from step 0" in messages[1]
    assert_same(begun, undisturbed)


def test_left_over_temporary_files(begun, undisturbed):
    for name in ("checkpoint.pt.tmp", "results.jsonl.tmp", "model.pkl.tmp", "run.json.tmp", "done.tmp"):
        (begun / name).write_bytes(b"half")
    assert_same(run(small_config(), begun), undisturbed)


# A full disk


def assert_stopped_for_space(folder, name):
    with pytest.raises(UserError, match=rf"No space is left for .*{name}\. .*recorded before is safe.*same command"):
        run(small_config(), folder)


def test_no_space_for_a_record(begun, undisturbed, monkeypatch):
    """The file system takes a part of the line and then no more."""
    append, before = RunFolder.append, records(begun)

    def append_with_little_space(self, record):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.results.stat().st_size + 100, limits[1]))
        try:
            append(self, record)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", append_with_little_space)
        assert_stopped_for_space(begun, "results.jsonl")
    assert records(begun) == before
    assert_same(run(small_config(), begun), undisturbed)


@pytest.mark.parametrize("name", ["checkpoint.pt", "model.pkl", "done"])
def test_no_space_for_a_file(begun, undisturbed, name):
    """/dev/full is a disk without space."""
    before = [line["step"] for line in records(begun)]
    temporary_name(begun / name).symlink_to("/dev/full")
    assert_stopped_for_space(begun, name)
    assert [line["step"] for line in records(begun)][: len(before)] == before
    assert checkpoint(begun)["step"] == (4 if name == "checkpoint.pt" else 6)
    assert not list(begun.glob("*.tmp"))
    assert_same(run(small_config(), begun), undisturbed)


# Logs


def test_errors_are_in_err_txt(tmp_path, monkeypatch):
    def update(self, batch):
        raise ZeroDivisionError("of a plugin")

    monkeypatch.setattr("domainbed_sage.algorithms.erm.ERM.update", update)
    with pytest.raises(ZeroDivisionError):
        run(small_config(), tmp_path)
    text = (tmp_path / "err.txt").read_text()
    assert text.startswith("Traceback")
    assert text.endswith("ZeroDivisionError: of a plugin\n")
    assert "Environment: " in (tmp_path / "out.txt").read_text()
    assert [h for h in logging.getLogger("domainbed_sage").handlers if isinstance(h, logging.FileHandler)] == []


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("end", ["finish", "clean"])
def test_what_only_a_restart_needs_goes_unless_it_is_to_be_kept(tmp_path, end, keep):
    folder, options = RunFolder(tmp_path), {"keep_checkpoint": True} if keep else {}
    names = ("checkpoint.pt", "checkpoint.previous.pt", "progress.json", "failed.json", "x.tmp")
    for name in names:
        (tmp_path / name).touch()
    folder.finish(None, **options) if end == "finish" else folder.clean(**options)
    assert {path.name for path in tmp_path.iterdir()} - {"done"} == (set(names[:2]) if keep else set())
