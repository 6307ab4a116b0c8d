"""The list of DomainNet's duplicates: applied on request, recorded, and refused if it is none."""

import hashlib
import json
from pathlib import Path

import generated_trees as trees
import pytest
from local_server import serve

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import domainnet
from domainbed_sage.data.folders import read_folders
from domainbed_sage.data.layout import Expected
from domainbed_sage.data.specs import datasets

GONE = {"clipart/class_000/pic_1.jpg", "real/class_344/pic_1.jpg"}
LISTED = "\n".join([*sorted(GONE), "", "real/class_344/pic_1.jpg", "sketch/class_001/none.jpg", ""])
LEFT = ("clipart/dog/pic_00003.jpg", "clipart/dog/pic_00002.jpg", "real/dog/pic_00003.jpg")
SHA256 = hashlib.sha256(LISTED.encode()).hexdigest()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.plant(tmp_path_factory.mktemp("data") / "domain_net", trees.few(datasets["DomainNet"], 1)).parent


@pytest.fixture
def data(tree: Path) -> Path:
    root = tree / "domain_net"
    for name in GONE:
        (root / name).write_bytes(trees.jpeg(0))
    (root / "SUBSET.txt").write_text("one of each, and two duplicates")
    (root / "PREPARED.json").unlink(missing_ok=True)
    return tree


def prepare(data: Path, listed: str) -> int:
    return cli.main(["data", "prepare", "domain_net", "--data_dir", str(data), "--duplicates", listed])


def test_the_listed_files_go_and_the_record_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "list.txt").write_text(LISTED)
    before = trees.files(data / "domain_net").keys()
    assert prepare(data, str(data / "list.txt")) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "DomainNet: 2070 images in " in told
    assert (
        "3 files are listed (clipart 1, infograph 0, painting 0, quickdraw 0, real 1, sketch 1): "
        "2 were removed now, 1 were not there." in told
    )
    after = trees.files(data / "domain_net").keys()
    assert before - after == GONE
    prepared = json.loads((data / "domain_net" / "PREPARED.json").read_text())
    assert prepared["duplicates"] == {
        "listed": 3,
        "sha256": SHA256,
        "per_environment": {"clipart": 1, "real": 1, "sketch": 1},
    }
    note = f"duplicates removed: the 3 files of a list with sha256 {SHA256}"
    assert datasets["DomainNet"].load(data).notes == (note,)
    assert prepare(data, str(data / "list.txt")) == 0
    assert "0 were removed now, 3 were not there." in " ".join(capsys.readouterr().out.split())
    assert datasets["DomainNet"].load(data).notes == (note,)


def test_the_list_can_come_from_an_address(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve() as site:
        site.files["/list.txt"] = LISTED.encode()
        site.types["/list.txt"] = "text/plain; charset=utf-8"
        assert prepare(data, f"{site.url}/list.txt") == 0
        assert "2 were removed now" in " ".join(capsys.readouterr().out.split())
        assert prepare(data, f"{site.url}/none.txt") == 2
        assert "none.txt answers 404 Not Found" in capsys.readouterr().err
    assert domainnet.LIST_URL.startswith("https://")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("clipart/../../x.jpg\n", r"'clipart/../../x.jpg' should be environment/class/file"),
        ("clipart/../x.jpg\n", r"'clipart/../x.jpg' should be environment/class/file"),
        (
            "clipart/dog/1.jpg\n/etc/x/passwd\n",
            r"1 mistake in the list of duplicates .*:\n  - '/etc/x/passwd' should be",
        ),
        ("<html>\n", r"'<html>' should be environment/class/file"),
        (" \n", r"list.txt should be a list of duplicates. It is empty"),
    ],
)
def test_lists_that_are_none_remove_nothing(listed: str, message: str, tmp_path: Path) -> None:
    root = trees.plant(tmp_path / "domain_net", {"clipart": {"dog": 2}, "real": {"dog": 2}})
    (root / "clipart/dog/pic_00000.jpg").rename(root / "clipart/dog/1.jpg")
    (tmp_path / "list.txt").write_text(listed)
    before = trees.files(tmp_path)
    with pytest.raises(UserError, match=message):
        domainnet.remove_duplicates(root, tmp_path / "list.txt", Expected())
    assert trees.files(tmp_path) == before
    with pytest.raises(UserError, match=r"none.txt should be a list of duplicates. There is no such file"):
        domainnet.read_list(tmp_path / "none.txt", ("clipart",))


def test_a_removal_that_would_leave_no_known_population(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "list.txt").write_text(LISTED)
    (data / "domain_net" / "SUBSET.txt").unlink()
    before = trees.files(data / "domain_net")
    assert prepare(data, str(data / "list.txt")) == 2
    message = capsys.readouterr().err
    assert "Without the files of the list, DomainNet in " in message
    assert "clipart holds 345 images, expected 48129 or 48833" in message
    assert "Nothing was removed." in message
    assert trees.files(data / "domain_net") == before


def test_an_interrupted_removal_is_done_again(tmp_path: Path) -> None:
    root = trees.plant(tmp_path / "domain_net", {"clipart": {"dog": 4}, "real": {"dog": 4}})
    expected = Expected(("clipart", "real"), 1, populations={"": (2, 3), "with duplicates": (4, 4)})
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in LEFT))
    (root / LEFT[0]).unlink()  # the first attempt came so far
    assert domainnet.remove_duplicates(root, tmp_path / "list.txt", expected).endswith(
        "2 were removed now, 1 were not there."
    )
    assert read_folders(root, "DomainNet", expected=expected).variant == ""
    (tmp_path / "list.txt").write_text("clipart/dog/pic_00000.jpg\n")
    with pytest.raises(UserError, match=r"(?s)clipart holds 1 images, expected 2 or 4\n.*Nothing was removed"):
        domainnet.remove_duplicates(root, tmp_path / "list.txt", expected)
    assert (root / "clipart/dog/pic_00000.jpg").is_file()


def test_lists_are_in_utf8(data: Path) -> None:
    listed = data / "list.txt"
    listed.write_bytes("real/class_000/bär.jpg\r\n".encode("utf-8-sig"))
    assert [path.name for path in domainnet.read_list(listed, ["real"])] == ["bär.jpg"]
    listed.write_bytes("real/class_000/bär.jpg".encode("latin-1"))
    with pytest.raises(UserError, match=r"list.txt should be a list of duplicates in UTF-8 \(.*Fetch it again"):
        domainnet.read_list(listed, ["real"])
