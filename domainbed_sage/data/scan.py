"""What the environment folders really contain: images, files that are skipped, and mistakes.

DomainBed follows every link to a folder, takes every file whose name ends like an image's, and says nothing about
the rest. A folder that is reached twice thus yields every image twice, possibly in both halves of the split: a mistake
here, whether through links or mounts, and so is an image that is a link to another image of the dataset. Hard links,
and links of several images to one file elsewhere, are allowed: stores that deduplicate contents create them, and the
published datasets hold some images more than once. `data check` counts them.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from domainbed_sage.data.layout import is_image

NOISE = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")  # as well as everything hidden
OF_SYSTEMS = ("@eaDir", "__MACOSX", "$RECYCLE.BIN")  # system folders for thumbnails or deleted files
UNREAD = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".svg", ".tga")
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000")  # recognised by their contents
UNKNOWN_BYTES = re.compile("[\udc80-\udcff]")  # how Python decodes bytes of a name that are not UTF-8
MAX_DEPTH = 64

Entry: TypeAlias = "os.DirEntry[str]"
Seen: TypeAlias = dict[tuple[int, int], Path]  # device and number of a folder, and the path that led to it first


@dataclass
class Contents:
    """What the class folders of one environment hold.

    Attributes:
        images: number of images that are read, by class.
        mistakes: what is wrong, each with its path.
        unread: images that are skipped because of their names.
        others: other files that are skipped, except those that operating systems leave everywhere.
    """

    images: dict[str, int] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def scan(root: Path, environments: Sequence[str]) -> dict[str, Contents]:
    """Scan those of the environment folders that exist, without decoding an image."""
    seen = _above(root)
    found = {e: Contents() for e in environments if (root / e).is_dir()}
    for e, contents in found.items():
        contents.mistakes += _wrong(root / e, seen)
    tops: list[tuple[Path, Contents]] = []
    for e, contents in found.items():  # all class folders before what links to them
        for folder in [] if contents.mistakes else _class_folders(root / e):
            if mistakes := _wrong(folder, seen):
                contents.mistakes += mistakes
            else:
                tops.append((folder, contents))
    trees = tuple(os.path.realpath(folder) + os.sep for folder, _ in tops)
    for folder, contents in tops:
        _look_through(folder, trees, seen, contents)
    return found


def images(root: Path, environments: Sequence[str]) -> Iterator[str]:
    """Every image that is read, as ``environment/class/file``, sorted within its folder; no folder comes twice."""
    seen = _above(root)
    tops = [folder for e in environments if (root / e).is_dir() for folder in _class_folders(root / e)]
    for top in [top for top in tops if not _again(top, seen)]:
        for folder, files in _walk(top, seen, []):
            place = folder.relative_to(root).as_posix()
            names = sorted(entry.name for entry in files if is_image(entry.name) and not _is_special(entry))
            yield from (f"{place}/{name}" for name in names)


def same_files(root: Path, paths: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of an image and the first one before it that is the same file, through any kind of link."""
    first: dict[tuple[int, int], str] = {}
    states = ((path, (root / path).stat()) for path in paths)
    pairs = ((path, first.setdefault((state.st_dev, state.st_ino), path)) for path, state in states)
    return [(path, other) for path, other in pairs if other is not path]


def as_text(name: str) -> str:
    """The name of a file or folder decoded as UTF-8, whatever the locale; bytes that are not UTF-8 stay marked."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def two_forms(names: Iterable[str]) -> list[str]:
    """Mistakes: names that look the same but differ, e.g. because macOS wrote one of them."""
    alike: dict[str, set[str]] = {}
    for name in names:
        alike.setdefault(unicodedata.normalize("NFC", name), set()).add(name)
    return [
        f"{' and '.join(map(ascii, sorted(forms)))} are the same name {name} in two Unicode forms; rename one"
        for name, forms in alike.items()
        if len(forms) > 1
    ]


def _above(root: Path) -> Seen:
    """The dataset's folder and its parents: a link to one of them leads back to all images."""
    above = (root, *root.resolve().parents)
    return {(state.st_dev, state.st_ino): folder for folder in above for state in [folder.stat()]}


def _class_folders(environment: Path) -> list[Path]:
    return sorted(path for path in environment.iterdir() if path.is_dir() and not path.name.startswith("."))


def _wrong(folder: Path, seen: Seen) -> list[str]:
    """What is wrong with the folder of an environment or a class itself."""
    mistakes = [mistake] if (mistake := _again(folder, seen)) else []
    if UNKNOWN_BYTES.search(as_text(folder.name)):
        mistakes.append(f"{folder} has a name that is no UTF-8, and goes into records and prompts; rename it")
    return mistakes


def _again(folder: Path, seen: Seen) -> str:
    """A mistake, if another path led to this folder before."""
    state = folder.stat()
    first = seen.setdefault((state.st_dev, state.st_ino), folder)
    if first is folder:
        return ""
    inside = folder.parent.resolve()
    what = "leads back to" if folder.resolve() in (inside, *inside.parents) else "is the same folder as"
    advice = "remove this link" if folder.is_symlink() else "remove one of the two"
    return f"{folder} {what} {first}, so that images would be read more than once; {advice}"


def _look_through(top: Path, trees: tuple[str, ...], seen: Seen, found: Contents) -> None:
    """Count the images of one class folder, and classify everything else in it."""
    count = 0
    for folder, files in _walk(top, seen, found.mistakes):
        below = folder.relative_to(top).parts
        hidden = any(part.startswith(".") for part in below)
        system = next((part for part in below if part in OF_SYSTEMS), "")
        for entry in files:
            if not is_image(entry.name):
                _pass_over(entry, found)
            elif mistake := _mistake(entry, hidden, system, trees):
                found.mistakes.append(f"{folder / entry.name} {mistake}")
            else:
                count += 1
    if not count:
        found.mistakes.append(f"class folder {top} holds no image")
    found.images[top.name] = count


def _walk(top: Path, seen: Seen, mistakes: list[str]) -> Iterator[tuple[Path, list[Entry]]]:
    """Yield a folder and all those below it, each with its files; links are followed, but no folder comes twice."""
    waiting = [(top, 0)]
    while waiting:
        folder, depth = waiting.pop()
        folders: list[Entry] = []
        files: list[Entry] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                (folders if _is_folder(entry) else files).append(entry)
        yield folder, files
        if folders and depth == MAX_DEPTH:
            mistakes.append(f"{folder} holds more folders, {MAX_DEPTH} within each other; move them away")
            return
        for below in (folder / entry.name for entry in folders):
            if mistake := _again(below, seen):
                mistakes.append(mistake)
            else:
                waiting.append((below, depth + 1))


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_file(entry: Entry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_special(entry: Entry) -> bool:
    """Whether it is a pipe or a device, which may block forever when opened; a broken link is not."""
    return not _is_file(entry) and os.path.exists(entry.path)  # noqa: PTH110 - as `entry.path` is a str


def _mistake(entry: Entry, hidden: bool, system: str, trees: tuple[str, ...]) -> str:
    """What is wrong with an image; nothing, as a rule."""
    if hidden or entry.name.startswith("."):
        return "is hidden, and DomainBed would read it as an image; remove it"
    if system:
        return f"is what a system keeps in {system}, and DomainBed would read it as an image; remove that folder"
    if not _is_file(entry):
        what = "a link that leads to no file" if entry.is_symlink() else "neither a file nor a folder"
        return f"is {what}; restore it, or remove it"
    if entry.is_symlink() and (target := os.path.realpath(entry.path)).startswith(trees):
        return f"is a link to {target}, so that this image would be read more than once; remove the link"
    return ""


def _pass_over(entry: Entry, found: Contents) -> None:
    if not entry.name.startswith(".") and entry.name.lower() not in NOISE:
        (found.unread if _is_unread(entry) else found.others).append(Path(entry.path))


def _is_unread(entry: Entry) -> bool:
    if entry.name.lower().endswith(UNREAD):
        return True
    try:
        if not entry.is_file():  # opening a pipe may block forever
            return False
        with Image.open(entry.path, formats=FORMATS):
            return True
    except Exception:  # whatever Pillow raises on files that are not images
        return False
