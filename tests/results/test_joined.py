"""Several results folders as one: what they share counts once, what differs is said, contradictions are refused."""

import json
import shutil

import pandas as pd
import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.core.errors import UserError
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.joined import load_folders
from domainbed_sage.results.report import measures


def write(folder, algorithm, accuracy=0.5, *, at=(0,), trial=0, env=0, **facts):
    """A run of two environments whose records also state these facts of `args`, and `device`, `versions`."""
    lines = sweep_folder.records(
        [[accuracy] * 2] * len(at), [[0.5] * 2] * len(at), algorithm=algorithm, trial=trial, test_envs=[env]
    )
    for line, step in zip(lines, at, strict=True):
        line["step"] = step
        line |= {key: facts[key] for key in ("device", "versions", "commit") if key in facts}
        line["args"] |= {key: facts[key] for key in facts if key not in ("device", "versions", "commit")}
    return sweep_folder.write(folder, lines)


@pytest.fixture
def labs(tmp_path):
    """Two folders that share ERM; SAM was run in the first, SAGE in the second."""
    for lab, algorithm in (("a", "SAM"), ("b", "SAGE")):
        for env in (0, 1):
            write(tmp_path / lab, "ERM", 0.5, env=env)
            write(tmp_path / lab, algorithm, 0.6, env=env)
    return tmp_path / "a", tmp_path / "b"


def test_rows_of_both_and_shared_runs_once(labs):
    loaded = load_folders(labs)
    assert sorted(run.label for run in loaded.records) == ["ERM", "ERM", "SAGE", "SAGE", "SAM", "SAM"]
    assert "2 runs found again in a further folder, equal and counted once." in loaded.notes()
    assert {loaded.path(run.name) for run in loaded.records if run.label != "ERM"} == {
        labs[at] / f"PACS-{label}-{env}-t0h0" for at, label in ((0, "SAM"), (1, "SAGE")) for env in (0, 1)
    }
    assert dg.table(labs).averages.strings()["PACS"].to_dict() == {"ERM": "50.0", "SAGE": "60.0", "SAM": "60.0"}


def test_one_folder_is_read_as_before(labs):
    a, _ = labs
    for paths in ([a], [a, a / ".." / "a"]):
        loaded, alone = load_folders(paths), load_records(a)
        assert [run.name for run in loaded.records] == [run.name for run in alone.records]
        assert loaded.notes() == alone.notes() == []
    with pytest.raises(UserError, match="No results folder is given"):
        load_folders([])


def test_different_runs_of_one_name_are_refused(labs):
    a, b = labs
    shutil.rmtree(b / "PACS-ERM-0-t0h0")
    write(b, "ERM", 0.7, device="cuda")
    with pytest.raises(UserError) as raised:
        load_folders([a, b])
    message = str(raised.value)
    assert f"{a / 'PACS-ERM-0-t0h0'} and {b / 'PACS-ERM-0-t0h0'} have the name of one run" in message
    assert "differ in in_acc, device." in message


def test_nan_is_equal_to_itself(labs):
    """Lazily evaluated runs have accuracies that are not there."""
    for lab in labs:
        lines = sweep_folder.records([[0.5, None]], [[None, 0.5]], algorithm="SD")
        sweep_folder.write(lab, lines)
    assert sum(run.label == "SD" for run in load_folders(labs).records) == 1


def test_contradictions_between_folders_name_both(labs, tmp_path):
    """What runs of one row may not differ in within a folder, they may not differ in across folders."""
    write(tmp_path / "c", "SAM", trial=1, model="small_cnn")
    write(tmp_path / "d", "SAM", trial=2, model="timm")
    with pytest.raises(UserError) as raised:
        load_folders([tmp_path / "c", tmp_path / "d"])
    assert str(tmp_path / "c" / "PACS-SAM-0-t1h0") in str(raised.value)
    assert str(tmp_path / "d" / "PACS-SAM-0-t2h0") in str(raised.value)
    (labs[1] / "PACS-ERM-0-t0h0").rename(labs[1] / "another name")
    with pytest.raises(UserError, match="hold the same run") as raised:
        load_folders(labs)
    assert str(labs[1] / "another name") in str(raised.value)


def test_what_agrees_and_what_differs(tmp_path):
    common = {"optimizer": "adam", "holdout_fraction": 0.2, "steps": 1}
    a, b, c = (tmp_path / name for name in "abc")
    write(a, "ERM", **common, model="m1", device="cpu", versions={"torch": "2.9", "numpy": "2"}, commit="1")
    write(b, "SAM", **common, model="m2", device="cpu", versions={"torch": "2.10", "numpy": "2"}, trial=1)
    write(c, "SAGE", **common, model="m1", device="cuda", versions={"torch": "2.9", "numpy": "2"}, trial=1)
    assert load_folders([a, b, c]).remarks == (
        "The folders agree in optimizer, precision, holdout_fraction, steps, population, hparams_seed, "
        "version of numpy.",
        f"The folders differ in model: m1 in {a}, {c}; m2 in {b}.",
        f"The folders differ in device: cpu in {a}, {b}; cuda in {c}.",
        f"The folders differ in trials on PACS: 0 in {a}; 1 in {b}, {c}.",
        f"The folders differ in commit: 1 in {a}; not stated in {b}, {c}.",
        f"The folders differ in version of torch: 2.9 in {a}, {c}; 2.10 in {b}.",
    )


def test_steps_are_compared_on_shared_datasets_only(tmp_path):
    """Another number of steps on another dataset is no difference."""
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, "ERM", at=(0, 1), steps=2)
    sweep_folder.write_flat(b, [0.5, 0.5], dataset="VLCS")
    assert not any("steps" in remark or "trials" in remark for remark in load_folders([a, b]).remarks)


def test_plans_are_joined(labs):
    a, b = labs
    (a / "plan.json").write_text(json.dumps([["PACS", label, [env], 0] for label in ("SAM", "GGA") for env in (0, 1)]))
    assert f"There is no plan.json in {b}: which of their runs are missing is not known." in load_folders(labs).remarks
    (b / "plan.json").write_text(json.dumps([["PACS", label, [env], 0] for label in ("SAGE", "ERM") for env in (0, 1)]))
    result = dg.table([str(a), b])
    assert list(result.averages.cells.index) == ["SAM", "GGA", "SAGE", "ERM"]
    assert [key[1] for key in result.missing] == ["GGA", "GGA"]
    assert not any("plan.json" in line for line in result.footer)


def test_faults_and_entries_of_each_folder_are_named(labs):
    a, b = labs
    (a / "notes.txt").write_text("")
    (a / "runs.zip").write_text("")
    (b / "table-2.svg").write_text("")  # one of ours
    (b / "PACS-SAGE-1-t0h0" / "done").unlink()
    (b / "PACS-SAGE-0-t0h0" / "results.jsonl").write_text("{]\n{}\n")
    (b / "plan.json").write_text("{")
    loaded = load_folders(labs)
    assert loaded.unfinished == (f"{b}/PACS-SAGE-1-t0h0",)
    assert [name for name, _ in loaded.unreadable] == [f"{b}/PACS-SAGE-0-t0h0"]
    assert str(b / "plan.json") in loaded.plan_fault
    assert f"Not runs: 1 ({a}/notes.txt)." in loaded.notes()
    assert f"In {a}: runs.zip is not read: there are run directories beside it." in loaded.notes()


def test_front_door_takes_a_list(labs):
    frame = dg.load_results(labs)
    assert set(frame["label"]) == {"ERM", "SAM", "SAGE"}
    theirs = dg.table(labs)
    assert dg.table(frame).to_text() == theirs.to_text()
    assert "2 runs found again" in dg.table(frame).to_text()
    comparison = dg.compare([str(folder) for folder in labs], methods=["SAGE", "SAM"])
    pd.testing.assert_series_equal(
        comparison.frame["difference"], dg.compare(frame, methods=["SAGE", "SAM"]).frame["difference"]
    )


def test_what_runs_log_beside_accuracies(tmp_path):
    lines = sweep_folder.records([[0.5] * 2] * 2, [[0.5] * 2] * 2, step_time=0.25, note="text", flag=True)
    lines[1] |= {"agreement": 0.5, "mem_gb": None}
    one = sweep_folder.write(tmp_path, lines, name="one")
    other = sweep_folder.write(tmp_path, sweep_folder.records([[0.5] * 2], [[0.5] * 2], beta=2, trial=1), name="other")
    found = []
    for path, run in zip((one, other), load_records(tmp_path).records, strict=True):
        found.append(pd.DataFrame(measures.read(path, run)).assign(run=run.name, step=run.steps, loss=run.loss))
    expected = pd.DataFrame(
        {
            "run": ["one", "one", "other"],
            "step": [0, 10, 0],
            "loss": [1.0, 0.5, 1.0],
            "step_time": [0.25, 0.25, None],
            "agreement": [None, 0.5, None],
            "beta": [None, None, 2.0],
        }
    )
    pd.testing.assert_frame_equal(pd.concat(found, ignore_index=True)[list(expected)], expected)
