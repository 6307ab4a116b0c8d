"""TerraIncognita from the images and annotations of Caltech Camera Traps, by the rules of DomainBed's script.

The script had three generations, which differ only in the annotations that they read. All of them take four locations,
ten categories, and a copy of the image for every annotation, so that an image with two categories is in two classes.
Users got 24,788 images from the first and 24,330 from the second; no published count was found for the third.
Unlike the script, which compares every image with every annotation for hours, this module reads each once.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import disk

LOCATIONS = ("100", "38", "43", "46")
CATEGORIES = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")
IMAGES = "eccv_18_all_images_sm"


@dataclass(frozen=True)
class Generation:
    """One generation of DomainBed's script: when it was in force, and what it read."""

    when: str
    files: tuple[str, ...]


GENERATIONS = (
    Generation("to July 2021", ("CaltechCameraTrapsECCV18.json",)),
    Generation("July 2021 to June 2024", ("caltech_images_20210113.json",)),
    Generation(
        "since June 2024",
        (
            "cis_test_annotations.json",
            "cis_val_annotations.json",
            "train_annotations.json",
            "trans_test_annotations.json",
            "trans_val_annotations.json",
        ),
    ),
)

Picture = tuple[str, str, str]  # location, category, file name


def generation(annotations: Path) -> tuple[Generation, list[Path]]:
    """Which generation of rules a file, or a folder of annotation files, belongs to.

    Raises:
        UserError: the files are of no generation, or of several.
    """
    names = {path.name: path for path in ([annotations] if annotations.is_file() else annotations.rglob("*.json"))}
    fitting = [g for g in GENERATIONS if all(name in names for name in g.files)]
    if len(fitting) == 1:
        return fitting[0], [names[name] for name in fitting[0].files]
    known = "; ".join(f"{', '.join(g.files)} ({g.when})" for g in GENERATIONS)
    found = ", ".join(sorted(names)) or "none"
    raise UserError(
        f"{annotations} should hold the annotation files of one generation of DomainBed's script: {known}. "
        f"Found {found}. Give the file itself, or a folder with one generation only."
    )


def select(annotations: Iterable[Path]) -> list[Picture]:
    """The pictures of the dataset, sorted; several files are combined.

    Raises:
        UserError: a file is not in the COCO Camera Traps format.
    """
    parts = [_load(path) for path in annotations]
    categories = {item["id"]: item["name"] for part in parts for item in part["categories"]}
    taken = {
        image["id"]: (str(image["location"]), image["file_name"])
        for part in parts
        for image in part["images"]
        if str(image["location"]) in LOCATIONS
    }
    pairs = [(a["image_id"], a["category_id"]) for part in parts for a in part["annotations"] if a["image_id"] in taken]
    if unknown := {category for _, category in pairs} - categories.keys():
        raise UserError(f"The annotations use categories that they do not define: {sorted(unknown)}. Fetch them again.")
    pictures = {(*taken[image], categories[c]) for image, c in pairs if categories[c] in CATEGORIES}
    if odd := [name for _, name, _ in pictures if Path(name).name != name]:
        raise UserError(f"The annotations name the image {odd[0]!r}. A plain file name is expected; do not use them.")
    return sorted((location, category, name) for location, name, category in pictures)


def _load(path: Path) -> dict[str, Any]:
    number = int | str
    shape: Mapping[str, Mapping[str, Any]] = {
        "categories": {"id": number, "name": str},
        "images": {"id": number, "location": number, "file_name": str},
        "annotations": {"image_id": number, "category_id": number},
    }
    try:
        content = strict_json.loads(path.read_bytes())
        lacking = [
            f"{key}.{name}"
            for key, fields in shape.items()
            for name, kind in fields.items()
            if not all(isinstance(item.get(name), kind) for item in content[key])
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        lacking = [f"{type(error).__name__}: {error}"]
    if lacking:
        raise UserError(
            f"{path} should be annotations in the COCO Camera Traps format (categories, images, annotations). "
            f"It lacks or breaks: {', '.join(lacking)}. Fetch it again."
        )
    return dict(content)


def rebuild(
    images: Path,
    annotations: Path,
    tree: Path,
    progress: Callable[..., Iterable[Picture]] = tqdm,
) -> Generation:
    """Copy the pictures to ``<tree>/location_<n>/<category>/<file>``.

    Args:
        images: folder of the original images, or the folder around ``eccv_18_all_images_sm``.
        annotations: annotation file, or a folder with those of one generation.
        tree: new folder.
        progress: wraps the list of pictures.

    Returns:
        the generation of rules that was applied.

    Raises:
        UserError: images are missing, or the annotations are not understood.
        NoSpace: the disk is full.
    """
    rules, files = generation(annotations)
    pictures = select(files)
    folder = images / IMAGES if (images / IMAGES).is_dir() else images
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()} if folder.is_dir() else {}
    if absent := sorted({name for _, _, name in pictures} - sizes.keys()):
        raise UserError(
            f"{folder} should hold all {len({name for _, _, name in pictures})} images that the annotations select. "
            f"Missing are {len(absent)}: {', '.join(absent[:10])}{' …' if len(absent) > 10 else ''}."
        )
    disk.require(tree, sum(sizes[name] for _, _, name in pictures), "TerraIncognita")
    with disk.explained(tree, "Free some space and start the same command again."):
        for location, category, name in progress(pictures, desc="TerraIncognita", unit="image", disable=None):
            path = tree / f"location_{location}" / category / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, path)
    return rules
