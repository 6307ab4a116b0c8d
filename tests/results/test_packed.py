"""A results folder packed into one file."""

import io
import json
import zipfile

import numpy as np
import pytest
from reference import sweep_folder

from domainbed_sage.cli import main
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import packed, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.joined import load_folders
from domainbed_sage.results.packed import FILE, pack, unpacked


@pytest.fixture
def folder(tmp_path):
    """Two finished runs, one that is not, a plan, and things that no table needs."""
    results = tmp_path / "results"
    for name, files in {
        "a": ("results.jsonl", "done", "model.pkl"),
        "b": ("results.jsonl", "done"),
        "c": ("results.jsonl",),
        "d": ("done",),
    }.items():
        (results / name).mkdir(parents=True)
        for file in files:
            (results / name / file).write_text(f'{{"of": "{name}", "acc": 0.1}}\n{{"acc": null}}\n')
    (results / "plan.json").write_text("a plan")
    (results / "table.md").write_text("a table")
    return results


def written(into, members):
    into.mkdir(exist_ok=True)
    with zipfile.ZipFile(into / FILE, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return into


def test_it_holds_finished_runs_and_the_plan(folder):
    content, runs = pack(folder)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        found = {name: file.read(name).decode() for name in file.namelist()}
    assert runs == 2
    assert found == {
        "plan.json": "a plan",
        "a/results.jsonl": '{"of": "a", "acc": 0.1}\n{"acc": null}\n',
        "a/done": "",
        "b/results.jsonl": '{"of": "b", "acc": 0.1}\n{"acc": null}\n',
        "b/done": "",
    }


def test_paths_of_the_machine_are_left_out(folder):
    record = {"args": {"dataset": "d", "data_dir": "/home/me/data", "output_dir": "out/x"}, "env0_in_acc": 1 / 3}
    (folder / "b" / "results.jsonl").write_text(json.dumps(record) + "\n")
    with zipfile.ZipFile(io.BytesIO(pack(folder)[0])) as file:
        assert json.loads(file.read("b/results.jsonl")) == {"args": {"dataset": "d"}, "env0_in_acc": 1 / 3}


def test_a_damaged_record_is_not_packed(folder):
    (folder / "b" / "results.jsonl").write_text("no record\n{}\n")
    with pytest.raises(UserError, match=r"b/results\.jsonl"):
        pack(folder)


def test_equal_records_give_equal_bytes(folder):
    content, _ = pack(folder)
    (folder / "a" / "done").touch()
    (folder / "plan.json").chmod(0o600)
    assert pack(folder)[0] == content


def test_unpacking_gives_the_folder_back_under_its_name(folder, tmp_path):
    into = written(tmp_path / "elsewhere", {})
    (into / FILE).write_bytes(pack(folder)[0])
    with unpacked(into) as results:
        assert results.name == "elsewhere"
        assert json.loads((results / "b" / "results.jsonl").read_text().splitlines()[0]) == {"of": "b", "acc": 0.1}
        assert sorted(entry.name for entry in results.iterdir()) == ["a", "b", "plan.json"]
    assert not results.exists()


@pytest.mark.parametrize(
    "member", ["../a/done", "/a/done", "a/model.pkl", "a/b/done", "./done", "../done", "table.md", "a/", "done"]
)
def test_other_members_are_refused(tmp_path, member):
    with (
        pytest.raises(UserError, match=r"should hold plan\.json.*Found"),
        unpacked(written(tmp_path / "x", {member: ""})),
    ):
        pass


def test_a_damaged_file_is_named(folder, tmp_path):
    into = written(tmp_path / "x", {})
    content = bytearray(pack(folder)[0])
    content[40] ^= 255
    (into / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"runs\.zip cannot be unpacked .* pack the runs again"), unpacked(into):
        pass


def test_a_bomb_is_not_unpacked(folder, tmp_path, monkeypatch):
    into = written(tmp_path / "x", {})
    (into / FILE).write_bytes(pack(folder)[0])
    monkeypatch.setattr(packed, "LARGEST", 10)
    with pytest.raises(UserError, match="would take 82 bytes unpacked; at most 10 bytes"), unpacked(into):
        pass


def test_nothing_finished_is_no_archive(tmp_path, capsys):
    (tmp_path / "r" / "a").mkdir(parents=True)
    for folder, words in ((tmp_path / "none", "There is no results folder"), (tmp_path / "r", "nothing is packed")):
        assert main(["pack", str(folder)]) == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["a"]


@pytest.fixture
def sweep(tmp_path):
    """A folder of two finished runs that are records, and one that is not finished."""
    results = tmp_path / "sweep"
    for env in (0, 1):
        lines = sweep_folder.records([[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6], [0.7, 0.8]], test_envs=[env])
        sweep_folder.write(results, lines, name=f"run{env}")
    sweep_folder.write(results, lines, name="running", done=False)
    return results


def packed_alone(results, into):
    into.mkdir()
    (into / FILE).write_bytes(pack(results)[0])
    (into / "README.md").write_text("What this is.")
    return into


def test_a_table_reads_a_packed_folder(sweep, tmp_path, capsys):
    into = packed_alone(sweep, tmp_path / "packed")
    alone, whole = load_records(into), load_records(sweep)
    assert [run.name for run in alone.records] == ["run0", "run1"]
    np.testing.assert_array_equal(alone.records[1].in_acc, whole.records[1].in_acc)
    assert alone.path("run1") == into / "run1"
    assert (alone.unfinished, alone.left_out()) == ((), [])
    assert sorted(entry.name for entry in into.iterdir()) == ["README.md", FILE]
    assert main(["table", str(into)]) == 0
    assert (into / "table.md").read_text() == tables.build(whole.records, "training-domain").to_markdown()
    capsys.readouterr()


def test_beside_runs_the_packed_ones_are_not_read(sweep):
    assert load_records(sweep).remarks == ()
    (sweep / FILE).write_bytes(b"damaged")
    loaded = load_records(sweep)
    assert [run.name for run in loaded.records] == ["run0", "run1"]
    assert loaded.remarks == ("runs.zip is not read: there are run directories beside it.",)


def test_a_packed_folder_joins_another(sweep, tmp_path):
    joined = load_folders([sweep, packed_alone(sweep, tmp_path / "packed")])
    assert len(joined.records) == 2
    assert "2 runs found again in a further folder, equal and counted once." in joined.remarks
