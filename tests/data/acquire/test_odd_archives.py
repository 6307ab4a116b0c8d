"""Archives as Windows, old programs and pranksters make them: unpacked, or one message, and never fetched in vain."""

import gzip
import io
import os
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import generated_trees as trees
import pytest
from local_server import serve

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import archives
from domainbed_sage.data.acquire.archives import DamagedArchive, unpack
from domainbed_sage.data.acquire.obtain import obtain
from domainbed_sage.data.sources import Own, Urls
from domainbed_sage.data.specs import datasets

JPEG = trees.jpeg(0)
LATIN = os.fsdecode(b"b\xfcro.jpg")


def as_zip(content: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.filename = info.orig_filename = name
            change(info)
            archive.writestr(info, data)
    return file.getvalue()


def patched(archive: bytes, local: int, central: int, value: int) -> bytes:
    """A zip archive with a number of two bytes in every local and central header replaced."""
    data = bytearray(archive)
    for signature, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset : at + offset + 2] = struct.pack("<H", value)
            at = data.find(signature, at + 4)
    return bytes(data)


def unpacked(tmp_path: Path, content: bytes) -> dict[str, bytes]:
    (tmp_path / "archive").write_bytes(content)
    unpack(tmp_path / "archive", tmp_path / "out")
    return {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}


def refusal(tmp_path: Path, content: bytes) -> str:
    """The message of an archive that is refused, but not called damaged; nothing of it is left, and it stays."""
    with pytest.raises(UserError) as caught:
        unpacked(tmp_path, content)
    assert not isinstance(caught.value, DamagedArchive)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    assert len(str(caught.value)) < 600
    return str(caught.value)


# Zip


@pytest.mark.parametrize(("method", "words"), [(9, "Deflate64"), (93, "method 93"), (98, "method 98")])
def test_compressions_that_python_does_not_know(method: int, words: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, patched(as_zip({"photo/a.jpg": JPEG}), 8, 10, method))
    assert f"archive cannot be unpacked here (its members are compressed with {words}, which Python does" in message
    assert "it is left as it is. Unpack it with another program, such as 7-Zip (`7z x archive`), and give" in message


@pytest.mark.parametrize("flag", [1 << 5, 1 << 6])
def test_features_that_zipfile_does_not_know(flag: int, tmp_path: Path) -> None:
    """Patches and strong encryption."""
    message = refusal(tmp_path, patched(as_zip({"photo/a.jpg": JPEG}), 6, 8, flag))
    assert "archive cannot be unpacked here (" in message


def test_the_last_part_of_several(tmp_path: Path) -> None:
    """Its first members lie in the parts before it, where nothing is found at their places."""
    content = bytearray(as_zip({"photo/a.jpg": JPEG, "photo/b.jpg": JPEG}))
    at = content.rfind(b"PK\1\2")
    content[at + 34 : at + 36] = struct.pack("<H", 2)
    message = refusal(tmp_path, bytes(content).replace(b"PK\3\4", b"....", 1))
    assert "(it is the last part of an archive in several parts)" in message


def test_a_good_download_that_cannot_be_unpacked_is_kept(tmp_path: Path) -> None:
    content = patched(as_zip({"photo/a.jpg": JPEG}), 8, 10, 9)
    with serve() as site:
        site.files["/PACS.zip"] = content
        source = Urls("original", "the first host", (f"{site.url}/PACS.zip",))
        with pytest.raises(UserError, match=r"(?s)Deflate64.*What came \(.*\) is kept in \S+/\.PACS\.download"):
            obtain(datasets["PACS"], tmp_path, (source,), say=lambda _: None)
    assert (tmp_path / ".PACS.download" / "original" / "PACS.zip").read_bytes() == content


def test_backslashes_of_windows_are_folders(tmp_path: Path) -> None:
    content = {"PACS\\photo\\": b"", "PACS\\photo\\dog\\a.jpg": JPEG, "PACS/photo/dog/b.jpg": b"b"}
    assert unpacked(tmp_path, as_zip(content)) == {"PACS/photo/dog/a.jpg": JPEG, "PACS/photo/dog/b.jpg": b"b"}


@pytest.mark.parametrize("name", ["..\\evil.jpg", "a\\..\\..\\evil.jpg", "\\evil.jpg"])
def test_they_lead_nowhere_else(name: str, tmp_path: Path) -> None:
    assert "points outside the folder" in refusal(tmp_path, as_zip({name: JPEG}))


def test_folders_by_their_mode_alone(tmp_path: Path) -> None:
    def folder(info: zipfile.ZipInfo) -> None:
        info.external_attr = (0o40755 if "." not in info.filename else 0o100644) << 16

    assert unpacked(tmp_path, as_zip({"photo": b"", "photo/a.jpg": JPEG}, folder)) == {"photo/a.jpg": JPEG}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("büro.jpg".encode(), "büro.jpg"),  # UTF-8 without the flag that says so
        (b"b\x81ro.jpg", "büro.jpg"),  # the alphabet of the IBM PC, the format's own
    ],
)
def test_names_without_a_flag(raw: bytes, name: str, tmp_path: Path) -> None:
    content = as_zip({"x" * len(raw): JPEG}).replace(b"x" * len(raw), raw)
    assert unpacked(tmp_path, content) == {name: JPEG}


def test_names_with_a_wrong_flag(tmp_path: Path) -> None:
    content = as_zip({"ü": JPEG}).replace("ü".encode(), b"\xfc\xfc")
    with pytest.raises(DamagedArchive):
        unpacked(tmp_path, content)


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = as_zip({"other.jpg": JPEG})
    assert set(unpacked(tmp_path, as_tar({"photo/a.jpg": JPEG, "more.zip": inner}))) == {"photo/a.jpg", "more.zip"}


# Names, in either kind


def as_tar(content: dict[str, bytes], **options: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as archive:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("make", [as_tar, as_zip])
def test_names_that_no_disk_takes(make: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    message = refusal(tmp_path, make({"photo/a.jpg": JPEG, f"photo/{'x' * 300}.jpg": JPEG}))
    assert f"its member 'photo/{'x' * 94}…' has a name that the disk does not take (File name too long)" in message


@pytest.mark.parametrize("make", [as_tar, as_zip])
def test_a_thousand_folders(make: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    deepest = "/".join(["d"] * (archives.MAX_DEPTH - 1))
    assert set(unpacked(tmp_path, make({f"{deepest}/a.jpg": JPEG}))) == {f"{deepest}/a.jpg"}
    (tmp_path / "2").mkdir()
    assert "lies 1001 folders deep" in refusal(tmp_path / "2", make({f"{'d/' * 1000}a.jpg": JPEG}))


def test_names_in_latin_1(tmp_path: Path) -> None:
    """They keep their bytes, as tar would leave them on the disk."""
    content = as_tar({f"photo/{LATIN}": JPEG}, encoding="utf-8", errors="surrogateescape", format=tarfile.GNU_FORMAT)
    assert b"photo/b\xfcro.jpg" in content
    assert unpacked(tmp_path, content) == {f"photo/{LATIN}": JPEG}
    assert [os.fsencode(path.name) for path in (tmp_path / "out" / "photo").iterdir()] == [b"b\xfcro.jpg"]


def test_an_archive_with_a_name_in_latin_1(tmp_path: Path) -> None:
    """Its name goes into PREPARED.json, and from there into every record."""
    pacs = datasets["PACS"]
    content = {f"PACS/{e}/{c}/a.jpg": JPEG for e, classes in trees.few(pacs).items() for c in classes}
    (tmp_path / LATIN).write_bytes(as_zip(content))
    obtain(pacs, tmp_path / "data", (Own((tmp_path / LATIN,)),), subset=f"one {LATIN}", say=lambda _: None)
    dataset = pacs.load(tmp_path / "data")
    assert dataset.notes == (f"from own copy {LATIN}",)
    assert dataset.variant == r"subset: one b\udcfcro.jpg"


# Headers of a tar


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


class _Zeros(io.RawIOBase):
    """A gzip stream of a header and 3 GB of zeros would take minutes to make; this one only counts what is read."""

    def __init__(self, head: bytes, size: int) -> None:
        self.head, self.size, self.at, self.given = head, size, 0, 0

    def read(self, size: int = -1) -> bytes:
        size = min(size if size >= 0 else self.size, len(self.head) + self.size - self.at)
        piece = (self.head[self.at : self.at + size] + bytes(size))[:size]
        self.at, self.given = self.at + size, self.given + size
        return piece

    def seek(self, at: int, whence: int = 0) -> int:
        self.at = at
        return at

    def tell(self) -> int:
        return self.at


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("first", [True, False])
def test_headers_of_3_gb(kind: bytes, first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = b"" if first else as_tar({"photo/a.jpg": JPEG})[: -(-len(JPEG) // 512) * 512 + 512]
    stream = _Zeros(before + header(kind, 3 * 10**9), 3 * 10**9)
    monkeypatch.setitem(archives.OPENERS, b"\x1f\x8b", lambda *_: stream)
    message = refusal(tmp_path, b"\x1f\x8b")
    assert "archive is refused: one of its members has headers of more than 262.1 kB" in message
    assert stream.given < 10**6


def test_long_names_and_attributes_are_read(tmp_path: Path) -> None:
    name = "/".join(["folder" * 10] * 10) + "/a.jpg"
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        (tmp_path / f"{number}").mkdir()
        headers = {"SCHILY.xattr.user": "x" * 100_000} if form == tarfile.PAX_FORMAT else {}
        content = as_tar({name: JPEG, "b.jpg": b"b"}, format=form, pax_headers=headers)
        assert unpacked(tmp_path / f"{number}", content) == {name: JPEG, "b.jpg": b"b"}


def test_the_bound_is_for_each_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "HEADER_BYTES", 4096)
    content = {f"{'folder/' * 30}{i}.jpg": bytes(10_000) for i in range(20)}
    assert unpacked(tmp_path, as_tar(content, format=tarfile.GNU_FORMAT)) == content


def test_headers_that_refer_to_each_other(tmp_path: Path) -> None:
    chain = header(tarfile.XHDTYPE, 0) * 500
    assert "its headers refer to each other without end" in refusal(tmp_path, chain + bytes(1024))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_negative_lengths_do_not_lead_back(kind: bytes, tmp_path: Path) -> None:
    """tarfile would go back in the file, for ever."""
    (tmp_path / "archive").write_bytes(header(kind, -1024) * 3 + bytes(1024))
    failed: list[BaseException] = []

    def attempt() -> None:
        try:
            unpack(tmp_path / "archive", tmp_path / "out")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    assert isinstance(failed[0], DamagedArchive)


def test_a_broken_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    """tarfile takes it for the end of a compressed archive, and the members after it would be missing."""
    one = as_tar({"photo/a.jpg": JPEG})
    length = 512 + -(-len(JPEG) // 512) * 512
    broken = bytearray(one[:length] * 2 + bytes(1024))
    broken[length + 148] ^= 1  # its checksum
    for content in (bytes(broken), gzip.compress(bytes(broken))):
        with pytest.raises(DamagedArchive, match="a tar archive without its end mark"):
            unpacked(tmp_path, content)
