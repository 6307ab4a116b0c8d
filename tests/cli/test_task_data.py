"""`domainbed-sage data` about datasets of several tasks."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from domainbed_sage.cli import main
from domainbed_sage.data.multitask import multi_mnist, rooms
from domainbed_sage.data.multitask.specs import task_datasets


@pytest.fixture
def say(capsys):
    def call(*words, status=0):
        assert main(["data", *map(str, words)]) == status
        out, err = capsys.readouterr()
        return " ".join(out.split()) or " ".join(err.split())

    return call


@pytest.fixture
def cityscapes(tmp_path):
    """Two invented scenes of each split."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(2):
            arrays = {
                "image": rng.random((128, 256, 3), dtype=np.float32),
                "label_7": rng.integers(-1, 7, (128, 256)).astype(np.float32),
                "depth": rng.random((128, 256, 1), dtype=np.float32) * 0.49,
            }
            for name, array in arrays.items():
                (tmp_path / "cityscapes" / split / name).mkdir(parents=True, exist_ok=True)
                np.save(tmp_path / "cityscapes" / split / name / f"{i}.npy", array)
    (tmp_path / "cityscapes" / "SUBSET.txt").write_text("invented")
    return tmp_path


def test_list(say):
    out = say("list", "NYUv2", "CelebA", "Rooms", "PACS")
    assert "NYUv2: 3 tasks: segmentation (13 outputs), depth (1 outputs), normal (3 outputs); 288 x 384 pixels" in out
    assert "in nyuv2/: 795 train, 654 test size: 8.5 GB" in out
    assert "and 37 others; 64 x 64 pixels" in out
    assert "Rooms: 3 tasks" in out
    assert "inside the package: 160 train, 80 test" in out
    assert "PACS: 7 classes" in out
    everything = say("list")
    assert all(f"{name}:" in everything for name in task_datasets)


def test_list_as_json(capsys):
    assert main(["data", "list", "Cityscapes", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["counts"], found["size"]) == ({"train": 2975, "test": 500}, [128, 256])
    assert found["kinds"]["depth"]["largest"] == 1.0
    assert main(["data", "list", "MultiMNIST", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {"load", "fetch"} & set(found) == set(), "functions are none of its facts"


def test_check(say, cityscapes):
    out = say("check", "Cityscapes", "--data_dir", cityscapes)
    assert out.startswith("Cityscapes: 2 train, 2 test, ")
    assert "types, shapes and values of all samples are as they should be" in out
    found = json.loads(say("check", "Rooms", "--json"))
    assert (found["dataset"], found["samples"]) == ("Rooms", {"train": 160, "test": 80})


def test_notes_are_said(say, monkeypatch):
    spec = task_datasets["Rooms"]
    few = replace(rooms.load(1, 1, size=(32, 32)), notes=("the first", "the second"))
    found = replace(spec, load=lambda root: few, counts={"train": 1, "test": 1}, size=(32, 32))
    monkeypatch.setitem(task_datasets._things, "Rooms", found)
    assert say("check", "Rooms").endswith("note: the first note: the second")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("label_7", 7.0, "labels should be from 0 to 6, or -1 where they are ignored. Found 7"),
        ("depth", np.nan, "depths should be finite, from 0 (invalid) to 1. Found 1 values that are NaN"),
        ("image", 255.0, "the image should have values in [0, 1]"),
    ],
)
def test_values_that_cannot_be(say, cityscapes, name, value, said):
    path = cityscapes / "cityscapes" / "val" / name / "1.npy"
    array = np.load(path)
    array.flat[5] = value
    np.save(path, array)
    out = say("check", "Cityscapes", "--data_dir", cityscapes, status=2)
    assert said in out
    assert "sample 1 of" in out


def test_manifest(say, cityscapes, tmp_path):
    out = say("manifest", "Cityscapes", "--data_dir", cityscapes)
    assert "MANIFEST.csv: 13 files" in out
    again = json.loads(say("manifest", "Cityscapes", "--data_dir", cityscapes, "--output", tmp_path / "m", "--json"))
    assert again["fingerprint"] in out
    rows = {row["path"]: row for row in csv.DictReader((tmp_path / "m").read_text().splitlines())}
    assert len(rows) == 13
    assert again["size_bytes"] == sum(int(row["size"]) for row in rows.values())
    assert rows["val/depth/1.npy"]["size"] == "131200"
    assert "inside the package" in say("manifest", "Rooms", status=2)
    (cityscapes / "cityscapes" / "SUBSET.txt").unlink()
    say("manifest", "Cityscapes", "--data_dir", cityscapes, "--output", tmp_path / "none", status=2)
    assert not (tmp_path / "none").exists(), "the counts are wrong"


def test_what_there_is_not(say, tmp_path):
    assert "For NYUv2 there are check and manifest" in say("download", "NYUv2", status=2)
    for words in (["--images"], ["--manifest", "x"], ["--leave_out"]):
        assert "All samples of Rooms are read anyway" in say("check", "Rooms", *words, status=2)
    assert "There is no folder" in say("check", "NYUv2", "--data_dir", tmp_path, status=2)


def test_download(say, tmp_path, monkeypatch):
    """Where a command can fetch a dataset; the others say where to read about it."""
    spec = task_datasets["MultiMNIST"]
    fetched = replace(spec, fetch=lambda root: root / "digits.tgz")
    monkeypatch.setitem(task_datasets._things, "MultiMNIST", fetched)
    out = say("download", "MultiMNIST", "--data_dir", tmp_path)
    assert out == f"MultiMNIST: {tmp_path}/multi_mnist/digits.tgz, of the expected content"
    assert "how to get it: `domainbed-sage data download MultiMNIST`" in say("list", "MultiMNIST")
    assert "docs/multitask_data.md says how to get it" in say("download", "CelebA", "--data_dir", tmp_path, status=2)


def test_what_downloads_the_digits(monkeypatch, tmp_path):
    monkeypatch.setattr(multi_mnist, "fetch", lambda root: root / "x")
    assert task_datasets["MultiMNIST"].fetch(tmp_path) == tmp_path / "x"
