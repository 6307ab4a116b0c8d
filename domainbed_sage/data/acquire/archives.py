"""Unpack tar and zip archives of unknown origin: regular files and folders only, inside the target, once each."""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import disk

LIMIT_BYTES = 200 * 10**9
BEGINNINGS = (b"PK", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # zip, gzip, bzip2, xz


class DamagedArchive(UserError):  # noqa: N818 - reads as what it is
    """The archive is cut short or corrupt: fetching it again may help."""


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; `forbidden` says what it is if it is neither a file nor a folder."""

    name: str
    size: int
    is_folder: bool
    forbidden: str
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, target: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Unpack a tar (also compressed) or zip archive into the new folder `target`, or leave nothing there.

    Only contents are taken: no owners, no permissions, no times. What macOS adds to archives (``__MACOSX``, ``._*``) is
    left out: it carries names of images and holds none.

    Raises:
        UserError: the archive is of another kind; or a member is a link, a device or encrypted, lies outside the
            target, comes twice, or makes more than `limit_bytes` in all; names the member.
        DamagedArchive: the archive is cut short or corrupt.
        NoSpace: the disk is full.
    """
    with disk.explained(target, "The archive is kept: free some space and start the same command again."):
        target.mkdir(parents=True)
        try:
            with _damage(archive):
                _write_all(archive, _members(archive, target), target, limit_bytes)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        raise _damaged(archive, str(error)) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(archive, str(error)) from None  # gzip and bz2 report corrupt data without an error number


def _damaged(archive: Path, reason: str) -> DamagedArchive:
    return DamagedArchive(
        f"{archive} is damaged or cut short ({reason}). Nothing of it was kept unpacked; fetch the archive again."
    )


def _members(archive: Path, target: Path) -> Iterator[_Member]:
    if not archive.is_file():
        raise UserError(f"{archive} should be a tar or zip archive. There is no such file.")
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive, target)
    else:
        with archive.open("rb") as file:
            head = file.read(16)
        if head.startswith(BEGINNINGS):
            raise _damaged(archive, "it begins like an archive and does not go on like one")
        raise UserError(f"{archive} should be a tar or zip archive. Found a file that begins with {head!r}.")


def _tar_members(path: Path, target: Path) -> Iterator[_Member]:
    def content(info: tarfile.TarInfo) -> IO[bytes] | None:
        return archive.extractfile(tarfile.data_filter(info, str(target)))

    with tarfile.open(path) as archive:
        for info in archive:
            kind = "" if info.isreg() or info.isdir() else "a link" if info.issym() or info.islnk() else "a device"
            yield _Member(info.name, info.size, info.isdir(), kind, partial(content, info))
        if _plain(path) and not _ends_with_mark(path, archive.offset):
            raise _damaged(path, "a tar archive without its end mark")
        while archive.fileobj is not None and archive.fileobj.read(1 << 20):
            pass  # only at its end does a compressed stream reveal a wrong checksum


def _ends_with_mark(path: Path, offset: int) -> bool:
    """Whether the members are followed by zeros; tarfile takes a tar cut between two members for a complete one."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _plain(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(257)
        return file.read(5) == b"ustar"


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            kind = "encrypted" if info.flag_bits & 1 else ""
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link" if stat.S_ISLNK(mode) else "a device"
            yield _Member(info.orig_filename, info.file_size, info.is_dir(), kind, partial(archive.open, info))


def _write_all(archive: Path, members: Iterable[_Member], target: Path, limit_bytes: int) -> None:
    files: set[PurePosixPath] = set()
    total = 0
    for member in tqdm(members, archive.name, unit="file", disable=None):
        place = _safe(archive, member)
        if "__MACOSX" in place.parts or place.name.startswith("._"):
            continue
        total += member.size
        if total > limit_bytes:
            raise UserError(
                f"{archive} is refused: it unpacks to more than {disk.readable(limit_bytes)} (at its member "
                f"{member.name!r}), far more than the dataset. Nothing of it was kept. Get the dataset from another "
                f"source."
            )
        if place in files and not member.is_folder:
            raise _forbidden(archive, member, "is there twice")
        if not files.isdisjoint([place, *place.parents]) or (not member.is_folder and (target / place).is_dir()):
            raise _forbidden(archive, member, "is both a file and a folder")
        if member.is_folder:
            (target / place).mkdir(parents=True, exist_ok=True)
        else:
            files.add(place)
            _write(archive, member, target / place)


def _write(archive: Path, member: _Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = member.open()
    if content is None:
        raise _damaged(archive, f"{member.name} has no content")
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    if path.stat().st_size != member.size:
        raise _damaged(archive, f"{member.name} ends early")


def _safe(archive: Path, member: _Member) -> PurePosixPath:
    """The member's place below the target."""
    place = PurePosixPath(member.name)
    if member.forbidden:
        raise _forbidden(archive, member, f"is {member.forbidden}")
    if place.is_absolute() or ".." in place.parts or "\\" in member.name or "\0" in member.name:
        raise _forbidden(archive, member, "points outside the folder")
    return place


def _forbidden(archive: Path, member: _Member, what: str) -> UserError:
    return UserError(
        f"{archive} is refused: its member {member.name!r} {what}. Allowed are plain files and folders inside the "
        f"archive's own folder. Nothing of it was kept. Get the dataset from another source."
    )
