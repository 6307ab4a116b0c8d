"""Unpacking: what comes out is what went in, and nothing dangerous or damaged leaves a trace."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.data.acquire.archives import DamagedArchive, unpack

FILES = {"kfold/photo/dog/056_0001.jpg": b"\xff\xd8" * 700, "kfold/Real World/a b.jpg": b"x", "kfold/empty.txt": b""}


def tar_info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = size, kind, target, 0o777
    return info


def make_tar(path: Path, mode: str = "w:gz", members: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, mode) as archive:
        archive.addfile(tar_info("kfold", kind=tarfile.DIRTYPE))
        for name, content in FILES.items():
            archive.addfile(tar_info(name, len(content)), io.BytesIO(content))
        for info in members or []:
            archive.addfile(info, io.BytesIO(b"!" * info.size))
    return path


def make_zip(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("kfold")
        for name, content in FILES.items():
            archive.writestr(name, content)
        for info, content in members or []:
            archive.writestr(info, content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_what_went_in_comes_out(mode: str, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive") if mode == "zip" else make_tar(tmp_path / "archive", mode)
    unpack(archive, tmp_path / "new" / "out")
    assert contents(tmp_path / "new" / "out") == FILES
    assert not any(p.stat().st_mode & 0o111 for p in (tmp_path / "new" / "out").rglob("*") if p.is_file())


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("__MACOSX/kfold/x.jpg", b"x"), ("kfold/photo/dog/._056_0001.jpg", b"x")])
    unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


TAR_ATTACKS = {
    "climbs": (tar_info("kfold/../../evil.jpg", 4), r"'kfold/../../evil.jpg' points outside the folder"),
    "absolute": (tar_info("/tmp/evil.jpg", 4), r"'/tmp/evil.jpg' points outside the folder"),
    "backslash": (tar_info("..\\evil.jpg", 4), r"points outside the folder"),
    "symlink": (tar_info("kfold/evil", kind=tarfile.SYMTYPE, target="/etc"), r"'kfold/evil' is a link"),
    "inner symlink": (tar_info("kfold/evil", kind=tarfile.SYMTYPE, target="photo"), r"'kfold/evil' is a link"),
    "hard link": (tar_info("kfold/evil", kind=tarfile.LNKTYPE, target="kfold/empty.txt"), r"'kfold/evil' is a link"),
    "device": (tar_info("kfold/evil", kind=tarfile.CHRTYPE), r"'kfold/evil' is a device"),
    "pipe": (tar_info("kfold/evil", kind=tarfile.FIFOTYPE), r"'kfold/evil' is a device"),
    "duplicate": (tar_info("kfold/empty.txt", 4), r"'kfold/empty.txt' is there twice"),
    "disguised duplicate": (tar_info("./kfold//empty.txt", 4), r"'./kfold//empty.txt' is there twice"),
    "folder over a file": (tar_info("kfold/empty.txt", kind=tarfile.DIRTYPE), r"is both a file and a folder"),
    "below a file": (tar_info("kfold/empty.txt/evil", 4), r"is both a file and a folder"),
    "file over a folder": (tar_info("kfold/photo", 4), r"is both a file and a folder"),
}


@pytest.mark.parametrize(("member", "message"), TAR_ATTACKS.values(), ids=TAR_ATTACKS)
def test_malicious_tar(member: tarfile.TarInfo, message: str, tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "PACS.tar.gz", members=[member])
    with pytest.raises(UserError, match=rf"PACS.tar.gz is refused: its member .*{message}. Allowed are plain files"):
        unpack(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


ZIP_ATTACKS = {
    "climbs": (zip_info("../evil.jpg", stat.S_IFREG), r"points outside the folder"),
    "absolute": (zip_info("/evil.jpg", stat.S_IFREG), r"points outside the folder"),
    "symlink": (zip_info("kfold/evil", stat.S_IFLNK), r"'kfold/evil' is a link"),
    "device": (zip_info("kfold/evil", stat.S_IFBLK), r"'kfold/evil' is a device"),
    "disguised duplicate": (zip_info("kfold/./empty.txt", stat.S_IFREG), r"is there twice"),
}


@pytest.mark.parametrize(("member", "message"), ZIP_ATTACKS.values(), ids=ZIP_ATTACKS)
def test_malicious_zip(member: zipfile.ZipInfo, message: str, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "PACS.zip", [(member, b"!!!!")])
    with pytest.raises(UserError, match=rf"PACS.zip is refused: its member .*{message}. Allowed are plain files"):
        unpack(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


def test_encrypted_zip(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "PACS.zip")
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of the first member in the central directory
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"PACS.zip is refused: its member 'kfold/' is encrypted"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_bombs(make: Callable[[Path], Path], tmp_path: Path) -> None:
    archive = make(tmp_path / "bomb")
    with pytest.raises(
        UserError, match=r"bomb is refused: it unpacks to more than 1.4 kB \(at its member 'kfold/Real Wo"
    ):
        unpack(archive, tmp_path / "out", limit_bytes=1400)
    unpack(archive, tmp_path / "out", limit_bytes=1401)


def cut(path: Path, keep: Callable[[int], int]) -> Path:
    path.write_bytes(path.read_bytes()[: keep(path.stat().st_size)])
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_truncated(mode: str, part: float, tmp_path: Path) -> None:
    content = bytes((i * i) % 251 for i in range(200_000))
    if mode == "zip":
        archive = make_zip(tmp_path / "archive", [("kfold/big.jpg", content)])
    else:
        with tarfile.open(tmp_path / "archive", mode) as tar:
            tar.addfile(tar_info("kfold/big.jpg", len(content)), io.BytesIO(content))
        archive = tmp_path / "archive"
    cut(archive, lambda size: int(size * part))
    with pytest.raises(
        DamagedArchive, match=r"archive is damaged or cut short \(.*\). Nothing of it was kept unpacked"
    ):
        unpack(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


def test_a_tar_cut_between_two_members(tmp_path: Path) -> None:
    archive = cut(make_tar(tmp_path / "VLCS.tar", "w"), lambda size: 512 + 512 + 1536)  # folder, header, first file
    with pytest.raises(DamagedArchive, match="a tar archive without its end mark"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_flipped_bits(make: Callable[[Path], Path], tmp_path: Path) -> None:
    archive = make(tmp_path / "archive")
    data = bytearray(archive.read_bytes())
    middle = data.index(b"056_0001") + 20 if make is make_zip else len(data) // 2
    data[middle : middle + 4] = b"\xaa\x55\xaa\x55"
    archive.write_bytes(data)
    with pytest.raises(DamagedArchive, match=r"archive is damaged or cut short"):
        unpack(archive, tmp_path / "out")


def test_other_files_are_named_by_how_they_begin(tmp_path: Path) -> None:
    page = tmp_path / "PACS.zip"
    page.write_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(
        UserError, match=r"PACS.zip should be a tar or zip archive. Found a file that begins with b'<!DOC"
    ):
        unpack(page, tmp_path / "out")
    with pytest.raises(UserError, match=r"none.zip should be a tar or zip archive. There is no such file"):
        unpack(tmp_path / "none.zip", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [page]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_tar(tmp_path / "PACS.tar.gz")
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: Path("/dev/full").write_bytes(b"x"))
    with pytest.raises(NoSpace, match=r"No space is left for \S+/out. The archive is kept: free some space"):
        unpack(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "PACS.tar.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(UserError, match=r"Cannot write \S+/out: File exists"):
        unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine": b"mine"}
