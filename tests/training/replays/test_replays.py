"""Recordings of multi-task codes are repeated; a small change of any of them, and what is damaged, is seen."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from domainbed_sage.cli import main
from domainbed_sage.core.errors import UserError
from domainbed_sage.training.replays import delta, directions, files
from domainbed_sage.training.replays.measured import Measured, distance, largest, not_compared, report

DATA = Path(__file__).parents[2] / "data" / "mtl"
FEW = {"k2_well", "k3_well", "k2_unit", "k2_zero_row", "seq_k2_unit", "seq_k3_small"}
NAMES = ("aggregation", "losses", "metrics", "metrics_absent_class", "augmentation")  # MTAN: tests/models


def recording(name):
    return json.loads((DATA / f"{name}.json").read_text()), dict(np.load(DATA / f"{name}.npz"))


@pytest.fixture
def changed(tmp_path):
    """A copy of a recording, changed by a function of its description and its arrays."""

    def write(name, change):
        info, arrays = recording(name)
        if name == "aggregation":
            arrays = {key: array for key, array in arrays.items() if key.split("/")[0] in FEW}
        change(info, arrays)
        (tmp_path / "x.json").write_text(json.dumps(info))
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    return write


@pytest.mark.parametrize("name", NAMES)
def test_everything_recorded_is_repeated(name):
    text, ok = files.verify(DATA / f"{name}.npz")
    assert ok
    assert "DIFFERS" not in text
    assert text.count(" ok") >= 7


def test_all_that_was_recorded_of_solvers_is_compared_or_named():
    rows = {row.what: row for row in directions.measure(*recording("aggregation"))}
    _, arrays = recording("aggregation")
    methods = {key.split("/", 1)[1].rpartition("/")[0] for key in arrays if key.startswith("k")} - {""}
    assert methods <= set(rows)
    assert {what for what, row in rows.items() if row.deviation is None} == set(directions.OTHERS)
    assert all(row.tolerance == 1e-8 for what, row in rows.items() if what.startswith("exact/"))


@pytest.mark.parametrize(
    ("name", "key", "row"),
    [
        ("aggregation", "k3_well/exact/CAGrad/direction", "exact/CAGrad"),
        ("aggregation", "k2_zero_row/PCGrad/direction", "PCGrad"),
        ("aggregation", "k2_unit/FairGrad_a2_samo/grad", "FairGrad_a2_samo, .grad"),
        ("aggregation", "seq_k3_small/MoCo/direction", "sequences, MoCo"),
        ("aggregation", "seq_k2_unit/exact/NashMTL/weights", "sequences, exact/NashMTL"),
        ("losses", "k3/UW/s", "UW/s"),
        ("losses", "k2/FAMO_gamma0.01/w", "FAMO_gamma0.01/w"),
        ("losses", "k3/DWA_epoch/weights", "DWA_epoch/weights"),
        ("metrics", "cityscapes/losses", "cityscapes: losses"),
        ("metrics", "nyuv2/delta_m", "nyuv2: Δm"),
        ("metrics_absent_class", "nyuv2/nanmean_iou", "nyuv2: miou_present"),
        ("augmentation", "nyuv2/draw4/label", "nyuv2: label"),
        ("augmentation", "cityscapes/draw5/image", "cityscapes: image"),
    ],
)
def test_a_small_change_is_seen(changed, name, key, row):
    def change(_info, arrays):
        arrays[key] = arrays[key] * (1 + 1e-5)

    text, ok = files.verify(changed(name, change))
    assert not ok
    assert [line[:42].rstrip() for line in text.splitlines() if "DIFFERS" in line] == [row]


@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [
        ("aggregation", "k3_well/PCGrad/orders", "directions of solvers"),
        ("losses", "k2/losses_after", "weights of solvers that see losses"),
        ("metrics", "nyuv2/1/depth_pred", "losses and metrics of scenes"),
        ("augmentation", "nyuv2/image", "crops of scenes"),
        ("mtan_segnet", "nyuv2/image", "a pass of MTAN"),
    ],
)
def test_what_is_missing_is_named(changed, name, key, kind):
    with pytest.raises(UserError, match=rf"should be a recording of {kind}\. Found: KeyError\('{key}'\)"):
        files.verify(changed(name, lambda info, arrays: arrays.pop(key)))


def test_names_of_parameters_are_those_of_the_authors(changed):
    def rename(info, arrays):
        for data in info["datasets"].values():
            data["parameters"][3]["name"] = "other"
        for key in [key for key in arrays if key.startswith("nyuv2")]:
            del arrays[key]

    text, ok = files.verify(changed("mtan_segnet", rename))
    assert not ok
    assert [line.split("  ")[0] for line in text.splitlines() if "DIFFERS" in line] == ["cityscapes: names and shapes"]


def test_delta_m_of_every_row(tmp_path):
    info = json.loads((DATA / "delta_m.json").read_text())
    assert [(row.cases, row.deviation <= 1e-12) for row in delta.measure(info)] == [(25, True)] * 2
    info["rows"][7]["cs_delta_m"] += 1e-8
    path = tmp_path / "d.json"
    path.write_text(json.dumps(info))
    assert not files.verify(path)[1]
    path.write_text("{}")
    with pytest.raises(UserError, match=r"should be a recording of Δm\. Found: KeyError\('rows'\)"):
        files.verify(path)


def test_files_and_folders(tmp_path, capsys):
    """Each under its name; what differs is named at the end."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    for name in ("losses.npz", "losses.json", "delta_m.json", "README.md"):
        shutil.copy(DATA / name, folder)
    augmentation = DATA / "augmentation.npz"
    assert main(["verify", str(tmp_path / "a"), str(augmentation)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith((".npz", ".json"))] == [
        str(folder / "delta_m.json"),
        str(folder / "losses.npz"),
        str(augmentation),
    ]
    assert lines[-1] == "3 recordings, all within their tolerances."
    info = json.loads((folder / "delta_m.json").read_text())
    info["rows"][0]["nyu_delta_m"] += 1
    (folder / "delta_m.json").write_text(json.dumps(info))
    assert main(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith(f"2 recordings, differ: {folder / 'delta_m.json'}.\n")


@pytest.mark.parametrize(
    ("words", "said"), [(["."], "has no recording: no file in it ends in .npz"), (["no.json"], "does not exist")]
)
def test_nothing_to_verify(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["verify", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_distances():
    assert distance([1.0, 2.0, 4.0], [1.0, 2.0, 5.0]) == 0.2
    assert distance([0.0, 0.0], [0.0, 0.0]) == 0
    assert distance([1.0, math.nan], [1.0, math.nan]) == 0
    assert distance([1.0, 2.0], [1.0, math.nan]) == math.inf
    assert distance([1.0, math.nan], [1.0, 2.0]) == math.inf
    assert distance([1.0], [1.0, 1.0]) == math.inf
    assert distance([math.inf], [1.0]) == math.inf


def test_what_is_ok():
    assert Measured("a", 1e-9, 1e-9, 1).ok
    assert not Measured("a", 1.1e-9, 1e-9, 1).ok
    assert not largest("no case", [], 1.0).ok
    for distances in ([math.nan, 0.0], [0.0, math.nan]):
        assert not largest("one case is no number", distances, 1.0).ok
    assert report([Measured("a", 0.0, 0.0, 1), not_compared("b", "why")])[1]
    assert not report([not_compared("b", "why")])[1]
