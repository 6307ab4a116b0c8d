"""Unpack tar and zip archives of unknown origin: regular files and folders only, inside the target, once each."""

import bz2
import errno
import gzip
import lzma
import math
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from tqdm import tqdm

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import disk

LIMIT_BYTES = 200 * 10**9
HEADER_BYTES = 1 << 18  # of one tar member, including long names and attributes
MAX_DEPTH = 64
SHOWN = 100  # characters of a name
OPENERS: dict[bytes, Callable[..., Any]] = {  # by the first bytes of the file
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\0\0": lzma.open,
}
ZIP, ZIP_UTF8 = b"PK", 0x800
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
DEFLATE64 = 9
REFUSED_NAMES = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


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
    left out: it is named like images but holds none.

    Raises:
        UserError: the archive is of another kind; or a member is a link, a device or encrypted, lies outside the
            target, occurs twice, or brings the total above `limit_bytes`; names the member.
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
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, UnicodeError) as error:
        raise _damaged(archive, str(error)) from None
    except RecursionError:
        raise UserError(f"{archive} is refused: its headers refer to each other without end.") from None
    except RuntimeError as error:  # zipfile's error for kinds of archives that it does not know
        raise _unsupported(archive, str(error)) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(archive, str(error)) from None  # gzip and bz2 report corrupt data without an error number


def _damaged(archive: Path, reason: str) -> DamagedArchive:
    return DamagedArchive(
        f"{archive} is damaged or cut short ({reason}). Nothing of it was kept unpacked; download the archive again."
    )


def _unsupported(archive: Path, reason: str) -> UserError:
    return UserError(
        f"{archive} cannot be unpacked here ({reason}), which does not mean that it is damaged: it is left as it is. "
        f"Unpack it with another program, such as 7-Zip (`7z x {archive.name}`), and give the folder with --from."
    )


def _members(archive: Path, target: Path) -> Iterator[_Member]:
    if not archive.is_file():
        raise UserError(f"{archive} should be a tar or zip archive. There is no such file.")
    with archive.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    opener = next((opener for beginning, opener in OPENERS.items() if head.startswith(beginning)), None)
    if opener is None and not _is_tar_header(head) and zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif opener is None and head.startswith(ZIP):
        raise _damaged(archive, "it begins like a zip archive and does not go on like one")
    else:
        yield from _tar_members(archive, opener, target, known=opener is not None or _is_tar_header(head))


def _is_tar_header(head: bytes) -> bool:
    """Zip archives are recognised by their ends, but a tar may end with a zip archive as its last member."""
    return head[257:262] == b"ustar"


class _TarStream:
    """The decompressed bytes of a tar; how much is read for the headers of one member is bounded.

    Without the bound, a header that claims to be 3 GB long would be read to its end, for minutes, from 3 MB.

    Attributes:
        left: bytes that may still be read.
        last: what was read last.
    """

    def __init__(self, file: IO[bytes], archive: Path) -> None:
        self._file, self._archive = file, archive
        self.seek, self.tell, self.last = file.seek, file.tell, b""
        self.left: float = HEADER_BYTES

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0:
            raise tarfile.ReadError("a header of negative length")
        if self.left < 0:
            raise UserError(
                f"{self._archive} is refused: one of its members has headers of more than "
                f"{disk.readable(HEADER_BYTES)}. Nothing of it was kept. Get the dataset from another source."
            )
        self.last = self._file.read(size)
        return self.last


def _tar_members(path: Path, opener: Callable[..., Any] | None, target: Path, *, known: bool) -> Iterator[_Member]:
    def content(info: tarfile.TarInfo) -> IO[bytes] | None:
        return archive.extractfile(tarfile.data_filter(info, str(target)))

    with (opener or open)(path, "rb") as file:
        stream = _TarStream(file, path)
        archive = _open_tar(stream, path, known=known)
        for info in archive:
            if info.size < 0:
                raise _damaged(path, f"{info.name} has a negative length")
            stream.left = math.inf  # the contents
            kind = "" if info.isreg() or info.isdir() else "a link" if info.issym() or info.islnk() else "a device"
            yield _Member(info.name, info.size, info.isdir(), kind, partial(content, info))
            stream.left = HEADER_BYTES
        if stream.last.strip(b"\0") or (opener is None and not stream.last):  # tarfile accepts both as a regular end
            raise _damaged(path, "a tar archive without its end mark")
        stream.left = math.inf
        while stream.read(1 << 20):
            pass  # only at its end does a compressed stream reveal a wrong checksum


def _open_tar(stream: _TarStream, path: Path, *, known: bool) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:")
    except tarfile.ReadError:
        if known:
            raise _damaged(path, "it begins like an archive and does not go on like one") from None
        raise UserError(
            f"{path} should be a tar or zip archive. Found a file that begins with {stream.last[:16]!r}. An archive of "
            f"another kind can be unpacked with its own program: give the folder with --from."
        ) from None


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():  # all, before the first is unpacked
            if info.volume:
                raise _unsupported(path, "it is the last part of an archive in several parts")
            if info.compress_type not in ZIP_METHODS:
                method = "Deflate64" if info.compress_type == DEFLATE64 else f"method {info.compress_type}"
                raise _unsupported(path, f"its members are compressed with {method}, which Python does not know")
        for info in archive.infolist():
            mode = info.external_attr >> 16
            kind = "encrypted" if info.flag_bits & 1 else ""
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link" if stat.S_ISLNK(mode) else "a device"
            name = _zip_name(info)
            is_folder = name.endswith("/") or stat.S_ISDIR(mode)
            yield _Member(name, info.file_size, is_folder, kind, partial(archive.open, info))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name with / between folders, which old Windows programs write as \\; read as UTF-8 even without its flag."""
    name = info.orig_filename
    if not info.flag_bits & ZIP_UTF8:
        with suppress(UnicodeError):  # else as the format prescribes, in code page 437
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")


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
        try:
            _put(archive, member, place, target, files)
        except OSError as error:
            if error.errno not in REFUSED_NAMES:
                raise
            raise _forbidden(archive, member, f"has a name that the disk does not take ({error.strerror})") from None


def _put(archive: Path, member: _Member, place: PurePosixPath, target: Path, files: set[PurePosixPath]) -> None:
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
    """The member's path below the target."""
    place = PurePosixPath(member.name)
    if member.forbidden:
        raise _forbidden(archive, member, f"is {member.forbidden}")
    if place.is_absolute() or ".." in place.parts or "\\" in member.name or "\0" in member.name:
        raise _forbidden(archive, member, "points outside the folder")
    if len(place.parts) > MAX_DEPTH:
        raise _forbidden(archive, member, f"lies {len(place.parts)} folders deep")
    return place


def _forbidden(archive: Path, member: _Member, what: str) -> UserError:
    name = member.name if len(member.name) <= SHOWN else f"{member.name[:SHOWN]}…"
    return UserError(
        f"{archive} is refused: its member {name!r} {what}. Allowed are plain files and folders inside the "
        f"archive's own folder. Nothing of it was kept. Get the dataset from another source."
    )
