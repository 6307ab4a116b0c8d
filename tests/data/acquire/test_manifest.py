"""Manifests: what two labs compare, and how a difference is told."""

from pathlib import Path

import generated_trees as trees
import pytest

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import manifest
from domainbed_sage.data.specs import datasets

PACS = datasets["PACS"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    trees.plant(tmp_path / "PACS", trees.few(PACS), "two of each", same=False)
    return tmp_path


def run(*arguments: str | Path) -> int:
    return cli.main(["data", *map(str, arguments)])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without its line breaks."""
    return " ".join(capsys.readouterr().out.split())


def test_a_manifest_is_written_and_holds(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "PACS", "--data_dir", data) == 0
    assert "contents were not compared: `domainbed-sage data manifest PACS` writes a manifest" in said(capsys)
    assert run("manifest", "PACS", "--data_dir", data) == 0
    written = said(capsys)
    lines = (data / "PACS" / "MANIFEST.csv").read_text().splitlines()
    image = data / "PACS" / "art_painting" / "dog" / "pic_00000.jpg"
    assert lines[0] == "path,size,sha256"
    assert lines[1].startswith(f"art_painting/dog/pic_00000.jpg,{image.stat().st_size},")
    assert len(lines) == 1 + 4 * 7 * 2
    fingerprint = manifest.fingerprint(manifest.read(data / "PACS" / "MANIFEST.csv"))
    assert f"MANIFEST.csv: 56 files, 37.5 kB, fingerprint {fingerprint}" in written
    assert run("check", "PACS", "--data_dir", data) == 0
    assert f"all 56 files are those of {data}/PACS/MANIFEST.csv (fingerprint {fingerprint[:12]})" in said(capsys)


def test_differences_are_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = data / "theirs.csv"
    assert run("manifest", "PACS", "--data_dir", data, "--output", theirs) == 0
    root = data / "PACS"
    (root / "photo/dog/pic_00000.jpg").rename(root / "photo/dog/pic_7.jpg")
    (root / "sketch/house/pic_00001.jpg").write_bytes(trees.jpeg(999))
    capsys.readouterr()
    assert run("check", "PACS", "--data_dir", data, "--manifest", theirs) == 2
    assert capsys.readouterr().err == (
        f"error: 1 file missing: {root}/photo/dog/pic_00000.jpg\n"
        f"1 file not in the manifest: {root}/photo/dog/pic_7.jpg\n"
        f"1 file with another size or sha256 than in the manifest: {root}/sketch/house/pic_00001.jpg\n"
    )


def test_equal_sizes_do_not_hide_other_contents(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("manifest", "PACS", "--data_dir", data) == 0
    image = data / "PACS" / "photo/dog/pic_00001.jpg"
    content = bytearray(image.read_bytes())
    content[-3] ^= 1
    image.write_bytes(content)
    capsys.readouterr()
    assert run("check", "PACS", "--data_dir", data) == 2
    assert capsys.readouterr().err == f"error: 1 file with another size or sha256 than in the manifest: {image}\n"


def test_many_differences_are_counted(data: Path) -> None:
    found = manifest.build(data / "PACS", ["photo", "sketch"])
    lines = manifest.compare({}, found).mistakes(data)
    assert lines[0].startswith(f"28 files not in the manifest: {data}/photo/dog/pic_00000.jpg, ")
    assert lines[0].endswith(" …")
    assert len(lines[0].split(", ")) == manifest.SHOWN
    assert manifest.compare(found, found).mistakes(data) == []


def test_wrong_counts_and_differences_come_together(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("manifest", "PACS", "--data_dir", data) == 0
    (data / "PACS" / "SUBSET.txt").unlink()
    (data / "PACS" / "photo/dog/pic_00000.jpg").unlink()
    assert run("check", "PACS", "--data_dir", data) == 2
    message = capsys.readouterr().err
    assert "PACS/photo holds 13 images, expected 1670" in message
    assert f"1 file missing: {data}/PACS/photo/dog/pic_00000.jpg" in message
    assert run("manifest", "PACS", "--data_dir", data) == 2
    assert "PACS/photo holds 13 images, expected 1670" in capsys.readouterr().err


def test_only_what_is_read_is_in_the_manifest(data: Path) -> None:
    root = data / "PACS"
    before = manifest.build(root, PACS.expected.environments or ())
    (root / "notes.jpg").write_bytes(b"")
    (root / "photo" / "list.png").write_bytes(b"")
    (root / "photo" / "dog" / "Thumbs.db").write_bytes(b"")
    assert manifest.build(root, PACS.expected.environments or ()) == before
    (root / "photo" / "dog" / "more").mkdir()
    (root / "photo" / "dog" / "more" / "x.JPG").write_bytes(trees.jpeg(0))
    after = manifest.build(root, PACS.expected.environments or ())
    assert after.keys() - before.keys() == {"photo/dog/more/x.JPG"}
    assert set(after) == {f"{env.name}/{key}" for env in PACS.load(data).environments for key in env.keys}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not enough values"),
        ("a,b\n", "its first line is"),
        ("path,size,sha256\na/x/1.jpg,many,0\n", "'many', of 'a/x/1.jpg'"),
    ],
)
def test_files_that_are_no_manifest(data: Path, text: str, reason: str) -> None:
    (data / "bad.csv").write_text(text)
    with pytest.raises(UserError, match=f"bad.csv should be a manifest with the columns path, size, sha256: {reason}"):
        manifest.read(data / "bad.csv")
    with pytest.raises(
        UserError, match=r"none.csv should be a manifest. There is no such file: `domainbed-sage data ma"
    ):
        manifest.read(data / "none.csv")


def test_names_with_commas_and_quotes_come_back() -> None:
    odd = {'Real World/a,"b"/ü.jpg': manifest.Entry(1, "0" * 64)}
    path = Path("unused")
    assert manifest.render(odd) == f'path,size,sha256\n"Real World/a,""b""/ü.jpg",1,{"0" * 64}\n'
    assert manifest.compare(odd, {}).mistakes(path) == ['1 file missing: unused/Real World/a,"b"/ü.jpg']


def test_a_file_that_cannot_be_read(data: Path) -> None:
    broken = data / "PACS" / "photo" / "dog" / "gone.jpg"
    broken.symlink_to(data / "nowhere")
    with pytest.raises(
        UserError, match=r"photo/dog/gone.jpg cannot be read \(No such file or directory\). Repair the disk"
    ):
        manifest.build(data / "PACS", ["photo"])


def test_a_missing_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "PACS", "--data_dir", tmp_path) == 2
    assert f"PACS should be in {tmp_path}/PACS, which does not exist. Check --data_dir." in capsys.readouterr().err


@pytest.mark.parametrize("rows", [None, b"a,b\n", b"a,one,x\n", b"x" * 200_000])
def test_what_is_no_manifest(rows: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "theirs.csv").write_bytes(b"" if rows is None else b"path,size,sha256\n" + rows)
    with pytest.raises(UserError, match=r"theirs.csv should be a manifest with the columns path, size, sha256: "):
        manifest.read(tmp_path / "theirs.csv")


GOOD = "a/x/1.jpg,7," + "0a" * 32


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD, "it has 'a/x/1.jpg' more than once"),
        (GOOD.replace("a/x/1", "../x/1"), "'../x/1.jpg' is not environment/class/file"),
        (GOOD.replace("a/x/1", "/a/x/1"), "'/a/x/1.jpg' is not environment/class/file"),
        (GOOD.replace("a/x/1", "a//x/1"), "'a//x/1.jpg' is not environment/class/file"),
        (GOOD.replace("a/x/1", "x/1"), "'x/1.jpg' is not environment/class/file"),
        (GOOD.replace(",7,", ",-7,"), "'-7', of 'a/x/1.jpg', is not a size in bytes"),
        (GOOD.replace(",7,", ",7_0,"), "'7_0', of"),
        (GOOD.replace(",7,", ", 7,"), "' 7', of"),
        (GOOD.replace(",7,", ",٣,"), "'٣', of"),
        (GOOD.replace(",7,", f",{'9' * 5000},"), "of 'a/x/1.jpg', is not a size in bytes"),
        (GOOD.replace("0a", "0A"), "is not a sha256 of 64 hexadecimal digits"),
        (GOOD[:-1], "is not a sha256 of 64 hexadecimal digits"),
    ],
)
def test_rows_that_cannot_be_right(row: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text(f"path,size,sha256\n{GOOD}\n{row}\n")
    with pytest.raises(UserError, match=f"should be a manifest .*{reason}"):
        manifest.read(path)
    path.write_text(f"path,size,sha256\n{GOOD}\n")
    assert manifest.read(path) == {"a/x/1.jpg": manifest.Entry(7, "0a" * 32)}
