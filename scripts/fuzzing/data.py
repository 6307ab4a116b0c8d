"""Random small trees, archives and images: each is read as it is, or refused with one message.

`fuzz_folders` and `fuzz_archives` take hypothesis' `data`.
"""

import functools
import gzip
import io
import os
import stat
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from domainbed_sage.core.errors import UserError
from domainbed_sage.data import scan
from domainbed_sage.data.acquire.archives import unpack
from domainbed_sage.data.decode import Decoder
from domainbed_sage.data.folders import read_folders
from fuzzing.damage import DAMAGES, Damage, damaged
from fuzzing.reader import Reader

LATIN = os.fsdecode(b"\xfc.jpg")
ENVIRONMENTS = st.sampled_from([*"ab" * 10, ".c", "é"])
CLASSES = st.sampled_from([*"xy" * 15, "e\u0301", "\u00e9", ".z", "@eaDir", os.fsdecode(b"\xfc")])
DEEPER = st.sampled_from([*[()] * 20, ("d",), ("d",), ("d", "e.jpg"), (".d",), ("d", "__MACOSX")])
GOOD = ["1.jpg", "2.JPG", "3.png", LATIN, "6.txt", "Thumbs.db", ".DS_Store"]
FILES = st.sampled_from([*GOOD * 6, "4.jfif", "5", ".7.jpg", "8.jpg.gif"])
KINDS = st.sampled_from(["image"] * 24 + ["hard"] * 6 + ["text", "pipe"])
LINKS = st.sampled_from([".", "..", "../..", "../x", "../../b/x", "1.jpg", "self", "/nowhere", "/"])


@functools.cache
def _image(form: str, mode: str = "RGB", side: int = 8) -> bytes:
    """One small image."""
    pixels = np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)
    file = io.BytesIO()
    image = Image.fromarray(pixels).convert("L" if mode.startswith("I") else mode)
    Image.Image.convert(image, mode).save(file, form)
    return file.getvalue()


def _plant(root: Path, data: st.DataObject) -> None:
    whole = [(e, c, (), "0.jpg", "image") for e in "ab" for c in "xy"]
    odd = data.draw(st.lists(st.tuples(ENVIRONMENTS, CLASSES, DEEPER, FILES, KINDS), max_size=4))
    for environment, name, deeper, file, kind in [*whole[data.draw(st.sampled_from([0, 0, 0, 1, 4])) :], *odd]:
        folder = Path(root, environment, name, *deeper)
        path = folder / file
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(root.rglob("*.jpg"))
        if path.exists():
            continue
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "hard" and others and stat.S_ISREG(others[0].lstat().st_mode):
            os.link(others[0], path)
        else:
            path.write_bytes(_image("JPEG") if kind == "image" else b"text")
    for target in data.draw(st.sampled_from([(), (), ()]) | st.tuples(LINKS)):
        folders = sorted(path for path in (root, *root.rglob("*")) if path.is_dir())
        name = data.draw(st.sampled_from(["link", "link.jpg", "self"]))
        data.draw(st.sampled_from(folders)).joinpath(name).symlink_to(target)


def fuzz_folders(data: st.DataObject) -> None:
    """One random tree, with links, pipes, hidden folders and names in odd alphabets."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "own").resolve()
        root.mkdir()
        _plant(root, data)
        try:
            dataset = read_folders(root, "Own")
        except UserError:
            return
        paths = [root / env.name / key for env in dataset.environments for key in env.keys]
        below = [path for path in root.glob("*/*/**/*") if path.is_file() and not path.is_symlink()]
        readable = {path for path in below if path.name.lower().endswith((".jpg", ".png"))}
        assert readable <= set(paths)  # nothing is passed over
        assert len({path.resolve() for path in paths}) == len(paths)  # nothing comes twice
        assert all(path.is_file() for path in paths)
        assert not [path for path in paths if any(part.startswith(".") for part in path.relative_to(root).parts)]
        assert not [path for path in below if path.suffix in (".jfif", ".gif")]
        listed = list(scan.images(root, [env.name for env in dataset.environments]))
        assert sorted(listed) == sorted(str(path.relative_to(root)) for path in paths)
        for env in dataset.environments:  # as DomainBed has them, and the classes are the same everywhere
            theirs = ImageFolder(str(root / env.name))
            assert [str(root / env.name / key) for key in env.keys] == [path for path, _ in theirs.samples]
            assert tuple(theirs.classes) == dataset.classes


PLAIN = [*"abcdefgh", "a.jpg", "b.jpg", "é"]
PARTS = st.sampled_from([*PLAIN * 8, ".", "..", "", "\\", "x" * 300, "d/" * 200, LATIN, "__MACOSX", "._a", "C:", " "])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
KINDS_OF_MEMBERS = st.sampled_from("f" * 40 + "dddddlhp")
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=600), KINDS_OF_MEMBERS), max_size=5)
TYPES = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "p": tarfile.FIFOTYPE}


def _as_tar(members: list[tuple[str, bytes, str]], form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, errors="surrogateescape") as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = TYPES[kind], "a"
            info.size = len(content) if kind == "f" else 0
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _as_zip(members: list[tuple[str, bytes, str]]) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, kind in members:
            info = zipfile.ZipInfo(name.encode(errors="replace").decode())
            mode = {"d": stat.S_IFDIR, "l": stat.S_IFLNK, "p": stat.S_IFIFO}.get(kind, stat.S_IFREG)
            info.external_attr = mode << 16
            archive.writestr(info, b"" if kind == "d" else content)
    return file.getvalue()


def _spoiled(content: bytes, data: st.DataObject) -> bytes:
    """The archive as it is, cut, or with some bytes replaced."""
    how = data.draw(st.sampled_from(["whole", "whole", "cut", "bytes"]))
    if how == "cut":
        return content[: data.draw(st.integers(0, len(content)))]
    spoiled = bytearray(content)
    for _ in range(data.draw(st.integers(1, 8)) if how == "bytes" and content else 0):
        spoiled[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    return bytes(spoiled)


def fuzz_archives(data: st.DataObject) -> None:
    """One random archive: tar in any format, also compressed, or zip; whole, cut, or with wrong bytes."""
    members = data.draw(MEMBERS)
    kind = data.draw(st.sampled_from(["zip", "gnu", "pax", "ustar"]))
    try:
        form = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}.get(kind, 0)
        content = _as_zip(members) if kind == "zip" else _as_tar(members, form)
    except ValueError:  # a name that this format cannot hold
        return
    if kind != "zip" and data.draw(st.booleans()):
        content = gzip.compress(content)
    spoiled = _spoiled(content, data)
    with tempfile.TemporaryDirectory() as folder:
        archive, target = Path(folder, "archive"), Path(folder, "in", "out")
        archive.write_bytes(spoiled)
        target.parent.mkdir()
        try:
            unpack(archive, target, limit_bytes=10**6)
        except UserError:
            assert not target.exists()
        else:
            found = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if not path.is_dir()}
            assert all(stat.S_ISREG(path.lstat().st_mode) for path in found.values())
            if spoiled == content:
                assert {name: path.read_bytes() for name, path in found.items()} == _wanted(members, kind == "zip")
        assert sorted(path.name for path in Path(folder).iterdir()) == ["archive", "in"]  # nothing lies outside
        assert set(target.parent.iterdir()) <= {target}


def _wanted(members: list[tuple[str, bytes, str]], is_zip: bool) -> dict[str, bytes]:
    """The files of an archive that is accepted; a zip has no hard links, and folders end in a slash."""
    files = [(name, content) for name, content, kind in members if kind in ("fh" if is_zip else "f")]
    if is_zip:
        files = [(name.encode(errors="replace").decode().replace("\\", "/"), content) for name, content in files]
        files = [(name, content) for name, content in files if not name.endswith("/")]
    places = {PurePosixPath(name): content for name, content in files}
    return {
        str(place): content
        for place, content in places.items()
        if "__MACOSX" not in place.parts and not place.name.startswith("._")
    }


# Images


FORMS = (
    *(("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1")),
    *(("PNG", "I;16"), ("GIF", "P"), ("WEBP", "RGB"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "I;16"), ("PPM", "L")),
)
DECODERS = (Decoder(), Decoder("draft", 4), Decoder("resized", 4))


def _read_image(example: tuple[tuple[str, str], list[Damage]], folder: Path) -> None:
    (form, mode), damages = example
    path = folder / "x.jpg"
    path.write_bytes(functools.reduce(damaged, damages, _image(form, mode, 16)) if damages else b"")
    for decode in DECODERS:
        found = decode(path)
        assert found.dtype == torch.uint8
        assert found.ndim == 3
        assert found.shape[0] == 3
        assert found.numel()


READERS = (
    Reader("folders", st.data(), lambda data, _: fuzz_folders(data)),
    Reader("archives", st.data(), lambda data, _: fuzz_archives(data)),
    Reader("image", st.tuples(st.sampled_from(FORMS), st.lists(DAMAGES, min_size=1, max_size=3)), _read_image),
)
