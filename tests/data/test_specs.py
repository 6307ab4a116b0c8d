"""The five benchmarks at their published sizes: order, classes, splits, one training step, and every quirk refused."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import generated_trees as trees
import numpy as np
import pytest
import torch

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.data import layout
from domainbed_sage.data.environment import MultiDomainDataset
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.specs import datasets, find
from domainbed_sage.data.splits import split

BENCHMARKS = ("VLCS", "PACS", "OfficeHome", "TerraIncognita", "DomainNet")
PACS_FINGERPRINTS = (
    ("590e9df6c6e5", "b18e165b1948", "f5e8ffa85246"),
    ("dcc713b678d2", "44dd006b16db", "078f6f378121"),
    ("7140c6cdd832", "8ca93ed073fb", "9ccfb9adc09b"),
    ("427501f9a48c", "a1fd36cd06f1", "e197d0a51418"),
)
FINGERPRINTS = {  # of trial 0
    ("VLCS", ""): "1f82132e5bca efbe6b1648b8 a4735c46ac10 f8dc844c5078",
    ("OfficeHome", ""): "f3db7a2693f1 823f7f9cee97 e485f4c02b72 7d490a04ebc3",
    ("TerraIncognita", "24788"): "22f99b00d812 1af50cd932f5 c983872133e0 d1e29ef4a875",
    ("TerraIncognita", "24330"): "d880e09df3ad 7f7d368da441 12acf17a01ee 4dea7e2f2810",
}


@pytest.fixture
def _leave_no_tree(tmp_path: Path) -> Iterator[None]:
    yield
    shutil.rmtree(tmp_path)


def fingerprints(dataset: MultiDomainDataset, trial: int) -> tuple[str, ...]:
    """First 12 digits of the sha256 of each environment's out indices."""
    outs = (split(len(env), i, trial).out for i, env in enumerate(dataset.environments))
    return tuple(hashlib.sha256(",".join(map(str, out)).encode()).hexdigest()[:12] for out in outs)


def train(dataset: str, data_dir: Path, output_dir: Path) -> dict[str, object]:
    """Train ERM for one step through the command line, and return its record."""
    command = f"train --dataset {dataset} --model small_cnn --steps 1 --eval full --device cpu --skip_model_save"
    places = ["--data_dir", str(data_dir), "--output_dir", str(output_dir)]
    assert cli.main([*command.split(), "--hparams", '{"width": 8}', *places]) == 0
    return json.loads((output_dir / "results.jsonl").read_text().splitlines()[-1])


@pytest.fixture
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread", "_leave_no_tree")
def test_pacs_at_full_size_loads_checks_splits_and_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = datasets["PACS"]
    trees.plant(tmp_path / "PACS", trees.published(spec))
    dataset = spec.load(tmp_path)
    assert [env.name for env in dataset.environments] == ["art_painting", "cartoon", "photo", "sketch"]
    assert sum(len(env) for env in dataset.environments) == 9991
    assert (dataset.variant, dataset.notes) == ("", ())
    assert tuple(zip(*(fingerprints(dataset, trial) for trial in range(3)), strict=True)) == PACS_FINGERPRINTS
    assert cli.main(["data", "check", "pacs", "--data_dir", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "9991 images in 7 classes; art_painting 2048, cartoon 2344, photo 1670, sketch 3929" in printed
    record = train("PACS", tmp_path, tmp_path / "run")
    assert record["step"] == 0
    assert all(0 <= float(str(record[f"env{i}_{part}_acc"])) <= 1 for i in range(4) for part in ("in", "out"))


@pytest.mark.usefixtures("_leave_no_tree")
@pytest.mark.parametrize(("name", "variant"), FINGERPRINTS)
def test_full_size(name: str, variant: str, tmp_path: Path) -> None:
    spec = datasets[name]
    counts = trees.published(spec, variant)
    trees.plant(tmp_path / spec.folder, counts)
    dataset = spec.load(tmp_path)
    assert dataset.variant == variant
    assert dataset.classes == tuple(sorted(dataset.classes)) == spec.expected.classes
    assert [env.name for env in dataset.environments] == list(counts)
    for env in dataset.environments:
        assert np.bincount(env.labels).tolist() == list(counts[env.name].values())
        assert list(env.keys) == sorted(env.keys)
    assert " ".join(fingerprints(dataset, 0)) == FINGERPRINTS[name, variant]


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("name", ["VLCS", "OfficeHome", "TerraIncognita", "DomainNet"])
def test_a_declared_subset_trains_under_its_own_name(name: str, tmp_path: Path) -> None:
    spec = datasets[name]
    root = trees.plant(tmp_path / spec.folder, trees.few(spec, 1 if spec.num_classes > 10 else 3), "a few\nof each")
    dataset = spec.load(tmp_path)
    assert dataset.variant == "subset: a few of each"
    assert len(dataset.classes) == spec.num_classes
    assert train(name, tmp_path, tmp_path / "run")["step"] == 0
    (root / "SUBSET.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"SUBSET.txt should say which part of the dataset this is, in a few words"):
        spec.load(tmp_path)


def test_the_table_is_complete() -> None:
    for name in BENCHMARKS:
        spec = datasets[name]
        assert spec.licence
        assert spec.citation
        assert spec.sources[0].key == "hub"
        assert spec.num_classes == (len(spec.expected.classes) or 345)
        assert spec.expected.classes == tuple(sorted(spec.expected.classes))
        assert len(spec.environments) == len(spec.expected.environments or ()) == len(spec.counts)
        assert list(spec.expected.environments or ()) == sorted(spec.expected.environments or ())
    totals = {name: [sum(n) for n in datasets[name].expected.populations.values()] for name in BENCHMARKS}
    assert totals == {
        "VLCS": [10729],
        "PACS": [9991],
        "OfficeHome": [15588],
        "TerraIncognita": [24788, 24330],
        "DomainNet": [586575, 596006],
    }
    removed = [b - a for a, b in zip(*datasets["DomainNet"].expected.populations.values(), strict=True)]
    assert (removed, sum(removed)) == ([704, 1596, 3493, 0, 2380, 1258], 9431)
    assert datasets["OfficeHome"].expected.classes[58:60] == ("TV", "Table")


def test_counts_of_the_embedded_datasets() -> None:
    for name in ("EmojiStyles", "EmojiStylesDisjoint"):
        assert datasets[name].counts == tuple(len(env) for env in datasets[name].load(None).environments)


def test_find_knows_folders_and_names() -> None:
    assert find("terra_incognita") is find("TerraIncognita") is datasets["TerraIncognita"]
    assert find("pacs").name == "PACS"
    with pytest.raises(UserError, match=r"Unknown dataset 'PASC'. Did you mean 'PACS'\?"):
        find("PASC")


def test_domain_net_with_and_without_duplicates(tmp_path: Path) -> None:
    expected = datasets["DomainNet"].expected
    for variant, totals in expected.populations.items():
        counts = {e: {"class": n} for e, n in zip(expected.environments or (), totals, strict=True)}
        assert layout.population(tmp_path, "DomainNet", counts, expected) == variant
    counts["real"] = {"class": 172946}
    with pytest.raises(UserError, match=r"real holds 172946 images, expected 172947 or 175327"):
        layout.population(tmp_path, "DomainNet", counts, expected)


Spoil = Callable[[Path], object]
SPOILED: list[tuple[str, str, Spoil, str]] = [
    ("stray environment", "PACS", lambda r: (r / "splits").mkdir(), r"PACS/splits is not an environment of PACS; move"),
    (
        "hidden environment",
        "PACS",
        lambda r: (r / ".ipynb_checkpoints").mkdir(),
        r"PACS/\.ipynb_checkpoints is hidden, and DomainBed would read it as an environment; remove it",
    ),
    (
        "missing environment",
        "PACS",
        lambda r: (r / "photo").rename(r.parent / "gone"),
        r"environment folder \S*PACS/photo is missing",
    ),
    (
        "hidden class",
        "PACS",
        lambda r: (r / "photo/.ipynb_checkpoints").mkdir(),
        r"PACS/photo/\.ipynb_checkpoints is hidden, and DomainBed would read it as a class; remove it",
    ),
    (
        "stray class",
        "PACS",
        lambda r: (r / "photo/cat").mkdir(),
        r"PACS/photo/cat is not a class of PACS; move it away",
    ),
    (
        "missing class",
        "PACS",
        lambda r: (r / "cartoon/dog").rename(r / "gone"),
        r"class folder \S*PACS/cartoon/dog is missing, but other environments have it",
    ),
    (
        "class that is missing everywhere",
        "PACS",
        lambda r: [(e / "horse").rename(r.parent / e.name) for e in list(r.iterdir()) if e.is_dir()],
        r"class folder \S*PACS/sketch/horse is missing\n",
    ),
    (
        "renamed class",
        "OfficeHome",
        lambda r: (r / "Art/Alarm_Clock").rename(r / "Art/Alarm Clock"),
        r"Art/Alarm Clock is not a class of OfficeHome; move it away\n.*class folder \S*Art/Alarm_Clock is missing",
    ),
    (
        "underscore for the space",
        "OfficeHome",
        lambda r: (r / "Real World").rename(r / "Real_World"),
        r"environment folder \S*Real World is missing\n.*Real_World is not an environment of OfficeHome",
    ),
    (
        "class without images",
        "PACS",
        lambda r: [path.rename(path.with_suffix(".txt")) for path in (r / "photo/dog").iterdir()],
        r"class folder \S*PACS/photo/dog holds no image",
    ),
    (
        "hidden image",
        "PACS",
        lambda r: (r / "photo/dog/._pic_00000.jpg").write_bytes(b""),
        r"PACS/photo/dog/\._pic_00000\.jpg is hidden, and DomainBed would read it as an image; remove it",
    ),
    (
        "repeated key in PREPARED.json",
        "PACS",
        lambda r: (r / "PREPARED.json").write_text('{"notes": ["a"], "notes": []}'),
        r"It is damaged \(has the key 'notes' 2 times; it should be there once\): restore it",
    ),
    (
        "damaged PREPARED.json",
        "PACS",
        lambda r: (r / "PREPARED.json").write_text("{"),
        r"PREPARED.json should be a JSON object with a list of texts under 'notes'. It is damaged",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "message"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED])
def test_what_would_shift_labels_is_refused_by_path(name: str, spoil: Spoil, message: str, tmp_path: Path) -> None:
    spec = datasets[name]
    spoil(trees.plant(tmp_path / spec.folder, trees.few(spec, 1), "one of each"))
    with pytest.raises(UserError, match=f"(?s){message}"):
        spec.load(tmp_path)


def test_a_stray_class_where_the_names_are_not_known_beforehand(tmp_path: Path) -> None:
    environments = datasets["DomainNet"].expected.environments or ()
    root = trees.plant(tmp_path / "domain_net", {e: {"axe": 1, "bee": 1} for e in environments})
    (root / "real" / "new").mkdir()
    with pytest.raises(UserError, match=r"domain_net/real/new is in 1 of 6 environments only; move it away, or compl"):
        read_folders(root, "DomainNet", expected=layout.Expected(environments, 2))
    (root / "real" / "new").rmdir()
    (root / "real" / "bee").rename(root / "bee")
    with pytest.raises(UserError, match=r"class folder \S+real/bee is missing, but other environments have it"):
        read_folders(root, "DomainNet", expected=layout.Expected(environments, 2))


def test_other_counts_are_refused_by_path(tmp_path: Path) -> None:
    vlcs = datasets["VLCS"]
    root = trees.plant(tmp_path / "VLCS", trees.published(vlcs))
    (root / "SUN09/dog/pic_00029.jpg").rename(root / "SUN09/bird/pic_99999.jpg")
    with pytest.raises(
        UserError, match=r"(?s)SUN09/bird holds 21 images, expected 20\n.*dog holds 29 images, expected 30"
    ):
        vlcs.load(tmp_path)
    (root / "SUN09/bird/pic_99999.jpg").unlink()
    with pytest.raises(UserError) as caught:
        vlcs.load(tmp_path)
    assert f"environment folder {root / 'SUN09'} holds 3281 images, expected 3282\n" in str(caught.value)
    assert "Found Caltech101 1415, LabelMe 2656, SUN09 3281, VOC2007 3376." in str(caught.value)
    assert "Published: 10729 = 1415 + 2656 + 3282 + 3376." in str(caught.value)
    assert "`domainbed-sage data check VLCS --manifest FILE`" in str(caught.value)
    assert f"say which in {root / 'SUBSET.txt'}: every record and table will then name it" in str(caught.value)


def test_mixed_populations_of_terra_incognita_are_refused(tmp_path: Path) -> None:
    terra = datasets["TerraIncognita"]
    counts = trees.published(terra, "24788") | {"location_38": trees.published(terra, "24330")["location_38"]}
    with pytest.raises(UserError, match=r"the environments in \S+ are from different populations\n") as caught:
        layout.population(tmp_path, terra.name, counts, terra.expected)
    assert re.search(r"24788: 24788 = 4879 \+ 9767 .*; 24330: 24330 = 4741 \+ 9736", str(caught.value))
    counts["location_38"]["dog"] += 1
    with pytest.raises(UserError, match=r"location_38 holds 9737 images, expected 9767 or 9736\n"):
        layout.population(tmp_path, terra.name, counts, terra.expected)


def test_data_dir_is_needed() -> None:
    with pytest.raises(UserError, match="PACS is read from disk: give the folder that holds PACS/ with --data_dir"):
        datasets["PACS"].load(None)
