"""`--json` of the commands that list or check things: strict JSON, and all that is known."""

import hashlib
import random
from dataclasses import fields, replace

import pytest
import torch
from generated_trees import few, plant
from helpers import strictly

from domainbed_sage.algorithms import algorithms
from domainbed_sage.cli import main
from domainbed_sage.cli.status import exit_code
from domainbed_sage.core.hparams import declared, resolve, validate
from domainbed_sage.data.multitask.specs import task_datasets
from domainbed_sage.data.specs import datasets
from domainbed_sage.models import clip, models, timm_backbone
from domainbed_sage.models.weights import clip_names
from domainbed_sage.sweeps.estimate import StepTime, plan
from domainbed_sage.sweeps.sweep import read_sweep
from domainbed_sage.training.notes import note_failure

SWEEP = """
name: s
datasets: [EmojiStyles]
model: small_cnn
algorithms: [ERM, SAGE]
test_envs: [[0], [1, 3]]
trials: 1
steps: 2
"""


@pytest.fixture
def listed(capsys):
    def call(*words):
        assert main([str(word) for word in words]) == 0
        return strictly(capsys.readouterr().out)

    return call


def test_data_list(listed):
    found = {row["name"]: row for row in listed("data", "list", "--json")}
    assert list(found) == [*datasets, *task_datasets]
    for name, spec in datasets.items():
        assert set(found[name]) == {field.name for field in fields(spec)} - {"load"}
        assert found[name]["environments"] == list(spec.environments)
        assert found[name]["expected"]["populations"] == {k: list(v) for k, v in spec.expected.populations.items()}
        sources = [(source["kind"], source["key"], source["title"]) for source in found[name]["sources"]]
        assert sources == [(type(source).__name__, source.key, source.title) for source in spec.sources]
    assert found["VLCS"]["expected"]["class_counts"]["SUN09"]["dog"] == 30


def things(what):
    return algorithms if what == "algorithms" else {name: spec.build for name, spec in models.items()}


@pytest.mark.parametrize("what", ["algorithms", "models"])
def test_list_has_every_hyperparameter(listed, what):
    found = {row["name"]: row for row in listed("list", what, "--json")}
    assert list(found) == list(things(what))
    for name, thing in things(what).items():
        hyperparameters = {h["name"]: h for h in found[name]["hyperparameters"]}
        assert {h["name"]: h["default"] for h in hyperparameters.values()} == resolve(declared(thing), {})
        assert {n for n, h in hyperparameters.items() if h["search"]} == {
            n for n, h in declared(thing).items() if h.search is not None
        }


def test_schema_and_search_range_say_what_is_allowed(listed):
    (sage,) = (row for row in listed("list", "algorithms", "--json") if row["name"] == "SAGE")
    found = {h["name"]: h for h in sage["hyperparameters"]}
    assert found["rho"]["schema"] == {"type": "number", "minimum": 0}
    assert found["noise"] == {"name": "noise", "default": True, "schema": {"type": "boolean"}, "search": None}
    search = found["rho"]["search"]
    assert search.pop("kind") == type(declared(algorithms["SAGE"])["rho"].search).__name__
    assert search == {key: getattr(declared(algorithms["SAGE"])["rho"].search, key) for key in search} != {}
    for choice in found["ns"]["schema"]["enum"]:
        assert validate(declared(algorithms["SAGE"]), {"ns": choice})["ns"] == choice


def test_description_is_the_whole_one(listed):
    (data,) = listed("list", "data", "--json")
    assert "batch_size: rows of each source domain" in data["description"]


def test_weights_list(listed, tmp_path):
    stored = random.Random(0).choice(clip_names())
    for name in (f"{stored}.pt", "mine.safetensors", "notes.txt"):
        (tmp_path / name).write_text("")
    found = {row["name"]: row for row in listed("weights", "list", "--json", "--weights_dir", tmp_path)}
    assert list(found) == [*clip_names(), "mine"]
    files = {name: row["file"] for name, row in found.items() if row["file"]}
    assert files == {stored: str(tmp_path / f"{stored}.pt"), "mine": str(tmp_path / "mine.safetensors")}
    assert (found["openai"]["activation"], len(found["openai"]["sha256"])) == ("quickgelu", 64)
    assert found["mine"] == {"name": "mine", "activation": None, "sha256": None, "file": files["mine"]}


@pytest.fixture
def pacs(tmp_path):
    """Two images of each class; one of them is a link to another, and one is no image."""
    root = plant(tmp_path / "PACS", few(datasets["PACS"]), "two of each", same=False)
    dog, other, broken = (root / "photo" / "dog" / f"pic_0000{i}.jpg" for i in range(3))
    other.unlink()
    other.hardlink_to(dog)
    broken.write_bytes(b"no image")
    return root


def test_data_check(listed, pacs, tmp_path, capsys):
    words = ("data", "check", "PACS", "--json", "--data_dir", tmp_path)
    plain = {
        "dataset": "PACS",
        "folder": str(pacs),
        "population": "subset: two of each",
        "classes": 7,
        "environments": {"art_painting": 14, "cartoon": 14, "photo": 15, "sketch": 14},
        "notes": [],
        "links": [["photo/dog/pic_00001.jpg", "photo/dog/pic_00000.jpg"]],
        "manifest": None,
        "decoded": None,
    }
    assert listed(*words) == plain
    made = listed("data", "manifest", "PACS", "--json", "--data_dir", tmp_path)
    written = (pacs / "MANIFEST.csv").read_bytes()
    size = sum(int(line.split(",")[1]) for line in written.decode().splitlines()[1:])
    sha256 = hashlib.sha256(written).hexdigest()
    assert made == {"file": str(pacs / "MANIFEST.csv"), "files": 57, "size_bytes": size, "fingerprint": sha256}
    decoded = {"images": 57, "corrupt": ["photo/dog/pic_00002.jpg"]}
    assert listed(*words, "--leave_out") == plain | {"manifest": made, "decoded": decoded}
    assert main([str(word) for word in (*words, "--images")]) == 2
    assert capsys.readouterr().out == ""


def test_data_cache(listed, tmp_path):
    plant(tmp_path / "PACS", few(datasets["PACS"]), "two of each")
    found = listed("data", "cache", "PACS", "--json", "--data_dir", tmp_path, "--image_size", "4")
    folder = tmp_path / "PACS.resized-6"
    size = sum(path.stat().st_size for path in folder.glob("*.bin"))
    assert found == {"folder": str(folder), "size_bytes": size, "side": 6}


def test_weights_check(listed, tmp_path, monkeypatch):
    state = {"visual.proj": torch.zeros(3, 2), "visual.bias": torch.zeros(5), "text.proj": torch.ones(4, 4, 1)}
    for module in (clip, timm_backbone):
        monkeypatch.setattr(module, "expected_tensors", lambda *_: {name: t.shape for name, t in state.items()})
    path = tmp_path / "mine.pt"
    torch.save(state, path)
    described = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    counts = {"values": 27, "tensors": 3, "matrices": 2}
    assert listed("weights", "check", path, "--json") == {
        "name": str(path),
        **described,
        "model": "CLIP ViT-B/16",
        **counts,
        "image_tower": {"values": 11, "tensors": 2, "matrices": 1},
        "activation": None,
    }
    path = path.rename(tmp_path / "timm-resnet18.a1_in1k.pt")
    found = listed("weights", "check", "timm:resnet18.a1_in1k", "--json", "--weights_dir", tmp_path)
    timm = {"name": "timm:resnet18.a1_in1k", "model": "timm:resnet18.a1_in1k"}
    assert found == described | timm | counts | {"file": str(path)}


def test_sweep_list(listed, tmp_path):
    (tmp_path / "s.yaml").write_text(SWEEP)
    runs = read_sweep(tmp_path / "s.yaml").runs()
    (tmp_path / "out" / runs[2].folder_name).mkdir(parents=True)
    (tmp_path / "out" / runs[2].folder_name / "done").touch()
    found = listed("sweep", "list", tmp_path / "s.yaml", "--json", "--output_dir", tmp_path / "out")
    assert [row["folder_name"] for row in found] == [run.folder_name for run in runs]
    assert [row["state"] for row in found] == ["missing", "missing", "done", "missing"]
    assert found[1]["test_envs"] == list(runs[1].test_envs)


def test_sweep_list_of_some_states(listed, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(SWEEP)
    first, second, *_ = read_sweep(tmp_path / "s.yaml").runs()
    for run in (first, second):
        (tmp_path / "out" / run.folder_name).mkdir(parents=True)
    (tmp_path / "out" / first.folder_name / "done").touch()
    note_failure(tmp_path / "out" / second.folder_name, "UserError", "no data")
    words = ("sweep", "list", tmp_path / "s.yaml", "--output_dir", tmp_path / "out")
    (found,) = listed(*words, "--json", "--state", "failed")
    assert (found["folder_name"], found["state"], found["reason"]) == (second.folder_name, "failed", "no data")
    assert [row["state"] for row in listed(*words, "--json", "--state", "failed", "--state", "done")] == [
        "done",
        "failed",
    ]
    assert main([str(word) for word in (*words, "--state", "failed")]) == 0
    assert capsys.readouterr().out == f"{second.folder_name}  failed\n1 run: 1 failed\n"
    assert main([str(word) for word in (*words, "--state", "running")]) == 0
    assert capsys.readouterr().out == "0 runs\n"


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["done", "done"], 0),
        (["done", "failed"], 1),
        (["done", "missing"], 3),
        (["failed", "missing"], 1),
        (["missing", "missing"], 3),
    ],
)
def test_exit_code_of_the_status(tmp_path, capsys, states, status):
    (tmp_path / "s.yaml").write_text(SWEEP.replace("[[0], [1, 3]]", "[[0]]"))
    for run, state in zip(read_sweep(tmp_path / "s.yaml").runs(), states, strict=True):
        (tmp_path / "out" / run.folder_name).mkdir(parents=True)
        if state == "done":
            (tmp_path / "out" / run.folder_name / "done").touch()
        if state == "failed":
            note_failure(tmp_path / "out" / run.folder_name, "UserError", "no data")
    words = ["sweep", "status", str(tmp_path / "s.yaml"), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    assert main([*words, "--exit-code"]) == status
    assert main([*words, "--exit-code", "--watch", "3600"]) == status


@pytest.mark.parametrize(("state", "code"), [("queued", 3), ("running", 3)])
def test_what_runs_or_waits_is_not_done(state, code):
    assert exit_code({"done": 3, state: 1}) == code


def test_sweep_plan(listed, tmp_path):
    (tmp_path / "s.yaml").write_text(SWEEP)
    runs = read_sweep(tmp_path / "s.yaml").runs()
    found = listed("sweep", "plan", tmp_path / "s.yaml", "--json", "--pass_time", "2", "--output_dir", tmp_path / "out")
    table = plan(runs, StepTime(2.0, 36))
    assert [(row.pop("dataset"), row.pop("algorithm")) for row in found] == list(table.index)
    assert found == table.to_dict("records")
    assert "hours" in found[0]


def test_sweep_plan_without_counts_says_null(listed, tmp_path, monkeypatch):
    (tmp_path / "s.yaml").write_text(SWEEP)
    monkeypatch.setitem(datasets._things, "EmojiStyles", replace(datasets["EmojiStyles"], counts=()))
    row, *_ = listed("sweep", "plan", tmp_path / "s.yaml", "--json", "--output_dir", tmp_path / "out")
    assert (row["images_evaluated"], row["images_full_grid"]) == (None, None)
    assert "hours" not in row
