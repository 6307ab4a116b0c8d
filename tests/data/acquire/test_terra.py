"""TerraIncognita from images and annotations, against DomainBed's quadratic rules written out, and its populations."""

import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import generated_trees as trees
import pytest

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import terra
from domainbed_sage.data.acquire.obtain import rebuild_terra
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.specs import datasets

CATEGORIES = ("bird", "bobcat", "car", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")
LOCATIONS = ("7", "38", "43", "46", "100")
Annotations = dict[str, list[dict[str, Any]]]


def annotate(first: int = 0) -> Annotations:
    """One image for every pair of location and category; every third has a second category, every fifth a repeat."""
    made: Annotations = {"categories": [{"id": 10 * i, "name": name} for i, name in enumerate(CATEGORIES)]}
    made |= {"images": [], "annotations": []}
    for number, (location, category) in enumerate(product(LOCATIONS, range(len(CATEGORIES)))):
        image = f"image{first + number:04d}"
        place: str | int = int(location) if number % 2 else location  # both were used, one in each generation
        made["images"].append({"id": image, "location": place, "file_name": f"{image}.jpg"})
        chosen = [category] + [(category + 3) % len(CATEGORIES)] * (number % 3 == 0) + [category] * (number % 5 == 0)
        made["annotations"] += [{"image_id": image, "category_id": 10 * c} for c in chosen]
    made["annotations"].append({"image_id": "an image that is not listed", "category_id": 0})
    return made


def literal(parts: list[Annotations]) -> set[str]:
    """What DomainBed's loops select: for every image, every annotation is looked at."""
    data = {key: [item for part in parts for item in part[key]] for key in ("categories", "images", "annotations")}
    names = {category["id"]: category["name"] for category in data["categories"]}
    selected = set()
    for image in data["images"]:
        if str(image["location"]) not in ("38", "46", "100", "43"):
            continue
        for annotation in data["annotations"]:
            if annotation["image_id"] == image["id"] and names[annotation["category_id"]] != "car":
                selected.add(f"location_{image['location']}/{names[annotation['category_id']]}/{image['file_name']}")
    return selected


def lay_out(place: Path, parts: Mapping[str, Annotations]) -> tuple[Path, Path]:
    """Write annotation files and one JPEG for each image; return the folders of images and annotations."""
    images, annotations = place / "images" / terra.IMAGES, place / "annotations" / "eccv_18_annotation_files"
    for folder in (images, annotations):
        folder.mkdir(parents=True)
    for name, part in parts.items():
        (annotations / name).write_text(json.dumps(part))
        for image in part["images"]:
            (images / image["file_name"]).write_bytes(trees.jpeg(len(list(images.iterdir()))))
    return images.parent, annotations.parent


def prepare(data: Path, images: Path, annotations: Path, *options: str) -> int:
    command = ["data", "prepare", "terra_incognita", "--data_dir", str(data), "--images", str(images)]
    return cli.main([*command, "--annotations", str(annotations), *options])


@pytest.mark.parametrize("rules", terra.GENERATIONS, ids=lambda rules: rules.when)
def test_every_generation_selects_what_domainbed_selects(
    rules: terra.Generation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {name: annotate(1000 * i) for i, name in enumerate(rules.files)}
    images, annotations = lay_out(tmp_path, parts)
    data = tmp_path / "data"
    assert prepare(data, images, annotations, "--subset", "one of each") == 0
    found = {name for name in trees.files(data / "terra_incognita") if name.endswith(".jpg")}
    assert found == literal(list(parts.values()))
    told = " ".join(capsys.readouterr().out.split())
    note = f"selected from Caltech Camera Traps by the rules of DomainBed's script {rules.when}"
    assert (
        f"TerraIncognita: {len(found)} images in {data}/terra_incognita, population subset: one of each; {note}" in told
    )
    assert datasets["TerraIncognita"].load(data).notes == (note,)


def test_an_image_with_two_categories_is_in_two_classes(tmp_path: Path) -> None:
    images, annotations = lay_out(tmp_path, {"CaltechCameraTrapsECCV18.json": annotate()})
    terra.rebuild(images, annotations, tmp_path / "tree")
    twice = list((tmp_path / "tree").rglob("image0012.jpg"))
    assert sorted(path.parent.name for path in twice) == ["bobcat", "coyote"]
    assert {path.read_bytes() for path in twice} == {(images / terra.IMAGES / "image0012.jpg").read_bytes()}


def population(totals: tuple[int, ...]) -> Annotations:
    """Annotations of a population's size: images of one category after the other at each location."""
    made: Annotations = {"categories": [{"id": i, "name": name} for i, name in enumerate(terra.CATEGORIES)]}
    made |= {"images": [], "annotations": []}
    for location, total in zip(terra.LOCATIONS, totals, strict=True):
        for number in range(total):
            name = f"{location}_{number}"
            made["images"].append({"id": name, "location": location, "file_name": f"{name}.jpg"})
            made["annotations"].append({"image_id": name, "category_id": number % len(terra.CATEGORIES)})
    return made


@pytest.mark.parametrize("totals", [(14, 16, 12, 18), (13, 15, 11, 17), (13, 16, 12, 18)])
def test_the_population_is_told(totals: tuple[int, ...], tmp_path: Path) -> None:
    small = {"24788": (14, 16, 12, 18), "24330": (13, 15, 11, 17)}  # the real ones are recognised in test_specs.py
    expected = replace(datasets["TerraIncognita"].expected, populations=small)
    spec = replace(
        datasets["TerraIncognita"],
        expected=expected,
        load=lambda data: read_folders(data / "terra_incognita", "TerraIncognita", expected=expected),
    )
    images, annotations = lay_out(tmp_path, {"caltech_images_20210113.json": population(totals)})
    if totals in small.values():
        dataset, note = rebuild_terra(spec, tmp_path / "data", images, annotations)
        assert small[dataset.variant] == totals
        assert note.endswith("by the rules of DomainBed's script July 2021 to June 2024")
        return
    with pytest.raises(UserError) as caught:
        rebuild_terra(spec, tmp_path / "data", images, annotations)
    assert "the environments in terra_incognita are from different populations" in str(caught.value)
    assert "Published: 24788: 60 = 14 + 16 + 12 + 18; 24330: 56 = 13 + 15 + 11 + 17." in str(caught.value)
    assert "To keep it all the same, give it a name: --subset 'WHAT IT IS'." in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_archives_serve_as_well_as_folders(tmp_path: Path) -> None:
    images, annotations = lay_out(tmp_path, {"CaltechCameraTrapsECCV18.json": annotate()})
    archives = []
    for folder in (images, annotations):
        archives.append(tmp_path / f"{folder.name}.tar.gz")
        with tarfile.open(archives[-1], "w:gz") as archive:
            archive.add(folder, ".")
    assert prepare(tmp_path / "data", archives[0], archives[1], "--subset", "one of each") == 0
    found = {name for name in trees.files(tmp_path / "data" / "terra_incognita") if name.endswith(".jpg")}
    assert found == literal([annotate()])


def test_missing_images_are_named(tmp_path: Path) -> None:
    images, annotations = lay_out(tmp_path, {"CaltechCameraTrapsECCV18.json": annotate()})
    for path in sorted((images / terra.IMAGES).iterdir())[11:23]:
        path.unlink()
    with pytest.raises(
        UserError, match=r"should hold all 41 images that the annotations select. Missing are 11: image0011"
    ):
        terra.rebuild(images, annotations, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_annotations_of_no_or_several_generations(tmp_path: Path) -> None:
    (tmp_path / "cis_val_annotations.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"should hold the annotation files of one generation .* Found cis_val_annotations"
    ):
        terra.generation(tmp_path)
    for rules in terra.GENERATIONS[:2]:
        (tmp_path / rules.files[0]).write_text("{}")
        assert terra.generation(tmp_path / rules.files[0])[0] is rules
    with pytest.raises(UserError, match=r"Give the file itself, or a folder with one generation only"):
        terra.generation(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": 1}]}, r"lacks or breaks: images.location, images.file_name. Fetch it again"),
        ({"categories": None}, r"lacks or breaks: TypeError"),
        ({"images": ["id, location, file_name"]}, r"lacks or breaks: AttributeError"),
        ({"images": [{"id": [1], "location": {}, "file_name": 3}]}, r"images.id, images.location, images.file_name"),
        ({"annotations": [{"image_id": {}, "category_id": []}]}, r"annotations.image_id, annotations.category_id"),
        ({"categories": []}, r"use categories that they do not define: \[0, 10, 20"),
        (
            {"images": [{"id": "image0012", "location": 38, "file_name": "../x.jpg"}]},
            r"name the image '../x.jpg'. A plain",
        ),
    ],
)
def test_broken_annotations(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "CaltechCameraTrapsECCV18.json"
    path.write_text(json.dumps(annotate() | change))
    with pytest.raises(UserError, match=message):
        terra.select([path])


def test_a_broken_file_and_missing_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(
        UserError, match=r"x.json should be annotations in the COCO Camera Traps format .* JSONDecodeError"
    ):
        terra.select([tmp_path / "x.json"])
    assert cli.main(["data", "prepare", "terra_incognita", "--data_dir", str(tmp_path)]) == 2
    assert "TerraIncognita is built from --images and --annotations of Caltech Camera Traps" in capsys.readouterr().err
    assert cli.main(["data", "prepare", "PACS", "--data_dir", str(tmp_path)]) == 2
    assert "'PACS' cannot be prepared. Known: EmojiStyles, TerraIncognita, DomainNet." in capsys.readouterr().err
