"""Getting a dataset: every kind of source, every archive's own folder names, and nothing in place that is not whole."""

import errno
import fcntl
import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import generated_trees as trees
import pytest
from local_server import REVISION, Cut, Site, serve

from domainbed_sage import cli
from domainbed_sage.core import network
from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.data.acquire import download
from domainbed_sage.data.acquire.obtain import obtain
from domainbed_sage.data.sources import Own, Source, Urls, domainbed_hub
from domainbed_sage.data.specs import datasets

PACS = replace(datasets["PACS"], size_bytes=10**6)
REPO = "PTeterwak/DomainBed_OOP"
ARCHIVE = f"/datasets/{REPO}/resolve/{REVISION}/all/PACS.tar.gz"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with serve() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return trees.files(trees.plant(tmp_path_factory.mktemp("pacs") / "PACS", trees.few(PACS), same=False))


def as_tar(content: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def as_zip(content: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


def get(place: Path, sources: tuple[Source, ...], subset: str = "two of each") -> list[str]:
    """Obtain PACS, and return what was said."""
    said: list[str] = []
    obtain(PACS, place, sources, subset=subset, say=said.append)
    return said


def nothing_in_place(place: Path) -> bool:
    """Whether no folder that could be taken for a dataset is there."""
    return [path.name for path in place.iterdir() if not path.name.startswith(".")] == []


def test_from_hugging_face(site: Site, pacs: dict[str, bytes], tmp_path: Path) -> None:
    archive = as_tar(trees.prefixed("PACS/", pacs))
    site.add_hub(REPO, {"README.md": b"", "all/PACS.tar.gz": archive, "easy/PACS.tar.gz": b"", "all/VLCS.tar.gz": b""})
    assert get(tmp_path, PACS.sources) == [f"PACS: from Hugging Face {REPO}"]
    found = trees.files(tmp_path / "PACS")
    prepared = json.loads(found.pop("PREPARED.json"))
    assert found.pop("SUBSET.txt") == b"two of each\n"
    assert found == pacs
    note = f"from Hugging Face {REPO} at revision {REVISION}"
    assert prepared["notes"] == [note]
    assert prepared["source"]["sha256"] == {"all_PACS.tar.gz": hashlib.sha256(archive).hexdigest()}
    dataset = PACS.load(tmp_path)
    assert (dataset.variant, dataset.notes) == ("subset: two of each", (note,))
    assert [path.name for path in tmp_path.iterdir()] == ["PACS"]


def test_an_easy_and_a_hard_part_are_put_together(site: Site, pacs: dict[str, bytes], tmp_path: Path) -> None:
    easy = {name: data for name, data in pacs.items() if name.endswith("0.jpg")}
    hard = {name: data for name, data in pacs.items() if name not in easy}
    parts = {
        f"{which}/PACS.tgz": as_tar(trees.prefixed("PACS/", part)) for which, part in (("easy", easy), ("hard", hard))
    }
    site.add_hub(REPO, parts)
    get(tmp_path, PACS.sources)
    assert {n: d for n, d in trees.files(tmp_path / "PACS").items() if n.endswith(".jpg")} == pacs


def test_a_repository_without_the_archive_names_what_it_has(site: Site, tmp_path: Path) -> None:
    site.add_hub(REPO, {"README.md": b"", "all/VLCS.tar.gz": b""})
    with pytest.raises(UserError, match=rf"{REPO} should hold files named like .* Found README.md, all/VLCS.tar.gz\."):
        get(tmp_path, (domainbed_hub("PACS"),))
    assert list(tmp_path.iterdir()) == []


def test_the_next_source_is_tried_and_told(site: Site, pacs: dict[str, bytes], tmp_path: Path) -> None:
    site.files["/original/PACS.zip"] = as_zip(trees.prefixed("kfold/", pacs))
    said = get(
        tmp_path, (domainbed_hub("PACS"), Urls("original", "the first host", (f"{site.url}/original/PACS.zip",)))
    )
    assert said[1].startswith(f"  {REPO} cannot be listed (")
    assert "404" in said[1]
    assert said[2] == "PACS: from the first host"
    assert PACS.load(tmp_path).notes == ("from the first host",)


def test_any_error_of_the_hub_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ones it raises depends on the HTTP library that its version is built on."""

    class ConnectTimeout(Exception):  # noqa: N818 - named as in the libraries
        pass

    def dataset_info(*args: object) -> None:
        raise ConnectTimeout("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    monkeypatch.setattr(network, "check_reachable", lambda url: None)
    with pytest.raises(UserError, match=rf"{REPO} cannot be listed \(ConnectTimeout: no route\)"):
        get(tmp_path, (domainbed_hub("PACS"),))


def test_all_failures_are_listed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        get(tmp_path, (domainbed_hub("PACS"), Urls("original", "the first host", (f"{site.url}/PACS.zip",))))
    message = str(caught.value)
    assert message.startswith(
        f"PACS could not be had from any source:\n  - Hugging Face {REPO}: {REPO} cannot be listed"
    )
    assert f"  - the first host: {site.url}/PACS.zip answers 404 Not Found" in message
    assert message.endswith("`domainbed-sage data download PACS --from ARCHIVE_OR_FOLDER`.")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_is_continued_by_the_next_call(
    site: Site, pacs: dict[str, bytes], tmp_path: Path
) -> None:
    site.add_hub(REPO, {"all/PACS.tar.gz": as_tar(trees.prefixed("PACS/", pacs))})
    site.faults[ARCHIVE] = [Cut(1000)] + [Cut(0)] * download.ATTEMPTS
    with pytest.raises(UserError, match=r"(?s)5 times in a row without progress.*What came \(1.1 kB\) is kept in"):
        get(tmp_path, (domainbed_hub("PACS"),))
    assert nothing_in_place(tmp_path)
    get(tmp_path, (domainbed_hub("PACS"),))
    assert site.ranges(ARCHIVE)[-1] == "bytes=1000-"
    assert PACS.load(tmp_path).classes == PACS.expected.classes


def test_wrong_checksum(site: Site, pacs: dict[str, bytes], tmp_path: Path) -> None:
    site.add_hub(REPO, {"all/PACS.tar.gz": as_tar(trees.prefixed("PACS/", pacs))})
    site.files[ARCHIVE] = as_tar({"PACS/other": b""})
    with pytest.raises(UserError, match=r"all/PACS.tar.gz should have the sha256 \w+. Found \w+. The file was deleted"):
        get(tmp_path, (domainbed_hub("PACS"),))
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_archive_is_fetched_anew(site: Site, pacs: dict[str, bytes], tmp_path: Path) -> None:
    whole = as_tar(trees.prefixed("PACS/", pacs))
    site.files["/PACS.tar.gz"] = whole[: len(whole) // 2]
    source = Urls("original", "the first host", (f"{site.url}/PACS.tar.gz",))
    with pytest.raises(UserError, match=r"(?s)from its source:\n.*PACS.tar.gz is damaged or cut short"):
        get(tmp_path, (source,))
    assert list(tmp_path.iterdir()) == []
    site.files["/PACS.tar.gz"] = whole
    get(tmp_path, (source,))
    assert (tmp_path / "PACS").is_dir()


def test_a_malicious_archive_leaves_nothing(site: Site, pacs: dict[str, bytes], tmp_path: Path) -> None:
    site.files["/PACS.tar.gz"] = as_tar(pacs | {"../../../../evil.jpg": b"evil"})
    place = tmp_path / "deep" / "data"
    with pytest.raises(UserError, match=r"is refused: its member '../../../../evil.jpg' points outside the folder"):
        get(place, (Urls("original", "the first host", (f"{site.url}/PACS.tar.gz",)),))
    assert nothing_in_place(place)
    assert not list(tmp_path.rglob("evil.jpg"))


def test_other_counts_are_not_put_in_place(site: Site, pacs: dict[str, bytes], tmp_path: Path) -> None:
    site.files["/PACS.zip"] = as_zip(pacs)
    with pytest.raises(UserError) as caught:
        get(tmp_path, (Urls("original", "the first host", (f"{site.url}/PACS.zip",)),), subset="")
    assert "environment folder PACS/photo holds 14 images, expected 1670" in str(caught.value)
    assert "To keep it all the same, give it a name: --subset 'WHAT IT IS'." in str(caught.value)
    assert nothing_in_place(tmp_path)


def test_a_full_disk_ends_it(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1_999_999))
    with pytest.raises(NoSpace, match=r"Fetching and unpacking PACS needs 2.0 MB in \S+. Found 2.0 MB free"):
        get(tmp_path / "data", PACS.sources)
    assert site.requests == []
    assert list((tmp_path / "data").iterdir()) == []


def test_a_dataset_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "PACS").mkdir()
    with pytest.raises(
        UserError, match=r"PACS exists already. Check it with `domainbed-sage data check PACS`, or move"
    ):
        get(tmp_path, PACS.sources)


def test_two_downloads_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / ".PACS.download").mkdir()
    with (tmp_path / ".PACS.download" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"PACS is being downloaded to \S+ by another process. Wait for its end"):
            get(tmp_path, PACS.sources)


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(UserError, match=r"is on a file system without locks \(No locks available\)"):
        get(tmp_path, PACS.sources)


LAYOUTS = {
    "PACS": ["kfold/"],
    "VLCS": ["VLCS/"],
    "OfficeHome": ["OfficeHomeDataset_10072016/"],
    "TerraIncognita": ["./a/b/terra_incognita/"],
    "DomainNet": [""] * 6,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_own_archives_in_their_own_layout(name: str, tmp_path: Path) -> None:
    spec = datasets[name]
    content = {f"{e}/{c}/pic.jpg": trees.jpeg(0) for e, classes in trees.few(spec).items() for c in classes}
    own = []
    for number, prefix in enumerate(LAYOUTS[name]):
        only = [f"{e}/" for e in (spec.expected.environments or ())[number:][: 1 if len(LAYOUTS[name]) > 1 else None]]
        own.append(tmp_path / f"part{number}")
        extra = {f"{prefix}README.txt": b"words", "__MACOSX/junk": b"junk"}
        own[-1].write_bytes((as_zip if number % 2 else as_tar)(extra | trees.prefixed(prefix, content, only)))
    command = ["data", "download", name, "--data_dir", str(tmp_path / "data"), "--subset", "one of each", "--from"]
    assert cli.main([*command, *map(str, own)]) == 0
    found = trees.files(tmp_path / "data" / spec.folder)
    assert {path: data for path, data in found.items() if path.endswith(".jpg")} == content
    assert spec.load(tmp_path / "data").variant == "subset: one of each"


def test_an_own_folder_is_copied_and_its_space_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = datasets["OfficeHome"]
    own = trees.plant(tmp_path / "mine" / "OfficeHome", trees.few(spec, 1))
    (own / "Real World").rename(own / "Real_World")
    before = trees.files(own)
    places = ["--data_dir", str(tmp_path / "data"), "--from", str(own.parent)]
    assert cli.main(["data", "download", "office_home", *places]) == 2
    assert "office_home/Real World holds 65 images, expected 4357" in capsys.readouterr().err
    assert cli.main(["data", "download", "office_home", "--subset", "one of each", *places]) == 0
    assert "OfficeHome: 260 images in " in " ".join(capsys.readouterr().out.split())
    assert trees.files(own) == before
    assert (tmp_path / "data" / "office_home" / "Real World" / "Mug" / "pic_00000.jpg").is_file()
    assert spec.load(tmp_path / "data").notes == ("from own copy mine",)


def test_what_was_said_of_a_copy_goes_with_it(tmp_path: Path) -> None:
    own = trees.plant(tmp_path / "mine", trees.few(PACS), "two of each")
    (own / "PREPARED.json").write_text('{"notes": ["made on a Sunday"]}')
    get(tmp_path / "data", (Own((own,)),), subset="")
    dataset = PACS.load(tmp_path / "data")
    assert (dataset.variant, dataset.notes) == ("subset: two of each", ("made on a Sunday", "from own copy mine"))


def test_own_copies_that_do_not_fit(tmp_path: Path, pacs: dict[str, bytes]) -> None:
    other = trees.plant(tmp_path / "other", {"train": {"dog": 1}})
    with pytest.raises(
        UserError, match=r"other should hold the folders art_painting, cartoon, photo, sketch. Found train"
    ):
        get(tmp_path / "data", (Own((other,)),))
    (tmp_path / "a.zip").write_bytes(as_zip(pacs))
    (tmp_path / "b.zip").write_bytes(as_zip(pacs))
    with pytest.raises(
        UserError, match=r"Two archives hold pic_00000.jpg of dog. Give only those that belong together"
    ):
        get(tmp_path / "data", (Own((tmp_path / "a.zip", tmp_path / "b.zip")),))
    with pytest.raises(UserError, match=r"none.zip should be a tar or zip archive. There is no such file"):
        get(tmp_path / "data", (Own((tmp_path / "none.zip",)),))
    assert (tmp_path / "a.zip").is_file()
    assert nothing_in_place(tmp_path / "data")
