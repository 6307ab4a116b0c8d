"""Arrange what a source delivered in DomainBed's layout, whatever the archive's own folders are called."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from domainbed_sage.core.errors import UserError, bullets, raise_all
from domainbed_sage.data import classnames, prepared, scan
from domainbed_sage.data.acquire import disk, parquet, terra
from domainbed_sage.data.acquire.archives import unpack
from domainbed_sage.data.sources import CameraTraps, Rows, Source
from domainbed_sage.data.specs import DatasetSpec

SAID = (prepared.PREPARED, prepared.SUBSET, classnames.FILE)  # what they state of a folder holds for its copy
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
        a note for readers of the results; often empty.

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
        with disk.explained(tree, "Free some space and start the same command again."), _readable(part):
            place = _locate(folder, names, part)
            if folder is part:
                _check_links(place, names)
            for environment in sorted(path for path in place.iterdir() if path.is_dir() and path.name in names):
                _merge(environment, tree / names[environment.name], move=folder is not part)
            for name in SAID:
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
    """The one folder that holds environment folders."""
    places: dict[Path, Path] = {}
    level = [folder]
    for _ in range(DEPTH):
        inner = [child for place in level for child in sorted(place.iterdir()) if child.is_dir()]
        for environment in (child for child in inner if child.name in names):
            places.setdefault(environment.parent.resolve(), environment.parent)
        level = [child for child in inner if child.name not in names]
    if len(places) == 1:
        return next(iter(places.values()))
    if not places:
        top = ", ".join(sorted(child.name for child in folder.iterdir())[:10]) or "nothing"
        raise UserError(f"{origin} should hold the folders {', '.join(names)}. Found {top}.")
    own = folder is origin
    sets = [
        f"{place if own else place.relative_to(folder)}: {', '.join(name for name in names if (place / name).is_dir())}"
        for place in places.values()
    ]
    raise UserError(
        f"{origin} should hold the environment folders once. Found several sets of them, and nothing says which is the "
        f"dataset:\n{bullets(sets)}\n{'Give' if own else 'Unpack it, and give'} the folder that you want with --from."
    )


@contextmanager
def _readable(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename and Path(os.fsdecode(error.filename)).is_relative_to(part):
            raise UserError(f"{error.filename} cannot be read ({error.strerror}). Change its permissions.") from None
        raise


def _check_links(place: Path, names: Mapping[str, str]) -> None:
    """Check a folder before it is copied: its links may form a cycle."""
    found = scan.scan(place, [name for name in names if (place / name).is_dir()])
    raise_all([mistake for contents in found.values() for mistake in contents.mistakes], f"the folders in {place}")


def _merge(source: Path, target: Path, *, move: bool) -> None:
    """Move or copy a folder into another, which several archives may hold parts of; only contents are copied."""
    if move and not target.exists():
        source.rename(target)
        return
    target.mkdir(exist_ok=True)
    for child in sorted(source.iterdir()):
        if child.is_dir():
            _merge(child, target / child.name, move=move)
        elif (target / child.name).exists():
            raise UserError(f"Two archives hold {child.name} of {target.name}. Give only those that belong together.")
        elif move:
            child.rename(target / child.name)
        elif child.is_file():  # not pipes and broken links, which are no images
            shutil.copyfile(child, target / child.name)
