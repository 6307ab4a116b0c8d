"""A results folder packed into one file."""

import io
import zipfile

import pytest

from domainbed_sage.cli import main
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import packed
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
            (results / name / file).write_text(f"{name} {file}\n")
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
        "a/results.jsonl": "a results.jsonl\n",
        "a/done": "a done\n",
        "b/results.jsonl": "b results.jsonl\n",
        "b/done": "b done\n",
    }


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
        assert (results / "b" / "results.jsonl").read_text() == "b results.jsonl\n"
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
    with pytest.raises(UserError, match="would take 52 bytes unpacked; at most 10 bytes"), unpacked(into):
        pass


def test_nothing_finished_is_no_archive(tmp_path, capsys):
    (tmp_path / "r" / "a").mkdir(parents=True)
    for folder, words in ((tmp_path / "none", "There is no results folder"), (tmp_path / "r", "nothing is packed")):
        assert main(["pack", str(folder)]) == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["a"]
