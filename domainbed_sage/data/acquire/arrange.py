"""From what a source delivered to a tree in DomainBed's layout, whatever the archive's own folders are called."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import prepared
from domainbed_sage.data.acquire import disk, parquet, terra
from domainbed_sage.data.acquire.archives import unpack
from domainbed_sage.data.sources import CameraTraps, Rows, Source
from domainbed_sage.data.specs import DatasetSpec

DEPTH = 4  # folders around the environments, e.g. data/PACS/kfold/art_painting


def arrange(source: Source, parts: Sequence[Path], work: Path, tree: Path, spec: DatasetSpec) -> str:
    """Fill `tree` with the environment folders from what a source delivered.

    Args:
        source: says of what kind the parts are.
        parts: archives, tables, or a folder.
        work: folder for what is temporary.
        tree: empty folder.
        spec: the dataset.

    Returns:
        what a reader of the results must know of it; often nothing.

    Raises:
        UserError: the parts do not hold the environment folders, or an archive is refused.
        NoSpace: the disk is full.
    """
    if isinstance(source, Rows):
        return parquet.write_tree(parts, source, spec.expected.classes, tree)
    if isinstance(source, CameraTraps):
        return camera_traps((parts[0], parts[1]), work, tree)
    names = {e: e for e in spec.expected.environments or ()} | dict(spec.aliases)
    limit = 10**9 + 3 * spec.size_bytes
    for number, part in enumerate(parts):
        folder = part
        if not part.is_dir():
            folder = work / f"unpacked{number}"
            unpack(part, folder, limit)
        place = _locate(folder, names, part)
        with disk.explained(tree, "Free some space and start the same command again."):
            for environment in sorted(path for path in place.iterdir() if path.is_dir() and path.name in names):
                _merge(environment, tree / names[environment.name], move=folder is not part)
            for name in (prepared.PREPARED, prepared.SUBSET):  # what was said of a copy stays true of its copy
                if (place / name).is_file():
                    shutil.copyfile(place / name, tree / name)
    return ""


def camera_traps(parts: tuple[Path, Path], work: Path, tree: Path) -> str:
    """Fill `tree` with TerraIncognita from images and annotations, each a folder, a file or an archive of it."""
    images, annotations = (
        part if part.is_dir() or part.suffix == ".json" else _unpacked(part, work / name)
        for part, name in zip(parts, ("images", "annotations"), strict=True)
    )
    rules = terra.rebuild(images, annotations, tree)
    return f"selected from Caltech Camera Traps by the rules of DomainBed's script {rules.when}"


def _unpacked(archive: Path, folder: Path) -> Path:
    unpack(archive, folder)
    return folder


def _locate(folder: Path, names: Mapping[str, str], origin: Path) -> Path:
    """The outermost folder that holds environment folders."""
    level = [folder]
    for _ in range(DEPTH):
        for place in level:
            if any((place / name).is_dir() for name in names):
                return place
        level = [child for place in level for child in sorted(place.iterdir()) if child.is_dir()]
    top = ", ".join(sorted(child.name for child in folder.iterdir())[:10]) or "nothing"
    raise UserError(f"{origin} should hold the folders {', '.join(names)}. Found {top}.")


def _merge(source: Path, target: Path, *, move: bool) -> None:
    """Move or copy a folder into another, of which several archives may hold parts."""
    if not target.exists():
        if move:
            source.rename(target)
        else:
            shutil.copytree(source, target)
        return
    for child in sorted(source.iterdir()):
        if child.is_dir():
            _merge(child, target / child.name, move=move)
        elif (target / child.name).exists():
            raise UserError(f"Two archives hold {child.name} of {target.name}. Give only those that belong together.")
        else:
            shutil.move(child, target / child.name) if move else shutil.copyfile(child, target / child.name)
