"""Single files over HTTP against a server on this machine: ranges, broken connections, refusals, a full disk."""

import errno
import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from local_server import Cut, Shifted, Site, serve

from domainbed_sage.core.errors import NoSpace, UserError
from domainbed_sage.data.acquire import disk, download

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/data/PACS.zip"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with serve() as running:
        running.files[PATH] = CONTENT
        yield running


def test_full_download(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "new" / "PACS.zip"
    assert download.fetch(site.url + PATH, target, SHA256) == SHA256
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert site.ranges(PATH) == [""]


def test_a_file_that_is_there_is_checked_and_kept(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "PACS.zip"
    target.write_bytes(CONTENT)
    assert download.fetch(site.url + PATH, target, SHA256) == SHA256
    assert site.requests == []


def test_cut_connections_are_continued(site: Site, tmp_path: Path) -> None:
    site.faults[PATH] = [Cut(1000), Cut(5000), 503]
    download.fetch(site.url + PATH, tmp_path / "PACS.zip", SHA256)
    assert site.ranges(PATH) == ["", "bytes=1000-", "bytes=5000-", "bytes=5000-"]


def test_a_later_call_continues_where_the_first_gave_up(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "PACS.zip"
    site.faults[PATH] = [Cut(70_000)] + [Cut(0)] * download.ATTEMPTS
    with pytest.raises(
        UserError, match=r"breaks \(RemoteProtocolError: .*, 5 times in a row without progress"
    ) as caught:
        download.fetch(site.url + PATH, target, SHA256)
    assert f"70.0 kB are kept in {target}.part: start the same command again to continue." in str(caught.value)
    assert not target.exists()
    site.requests.clear()
    download.fetch(site.url + PATH, target, SHA256)
    assert site.ranges(PATH) == ["bytes=70000-"]
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_starts_over(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "PACS.zip"
    site.faults[PATH] = [Cut(70_000)] + [Cut(0)] * download.ATTEMPTS
    with pytest.raises(UserError, match="without progress"):
        download.fetch(site.url + PATH, target)
    site.files[PATH] = CONTENT[::-1]
    download.fetch(site.url + PATH, target)
    assert site.ranges(PATH)[-1] == "bytes=70000-"
    assert target.read_bytes() == CONTENT[::-1]


def test_a_file_that_shrank_meanwhile_starts_over(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "PACS.zip"
    site.faults[PATH] = [Cut(70_000)] + [Cut(0)] * download.ATTEMPTS
    with pytest.raises(UserError, match="without progress"):
        download.fetch(site.url + PATH, target)
    site.faults[PATH] = [416]
    site.files[PATH] = CONTENT[:50_000]
    download.fetch(site.url + PATH, target)
    assert site.ranges(PATH)[-2:] == ["bytes=70000-", ""]
    assert target.read_bytes() == CONTENT[:50_000]


def test_a_server_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.forgetful = True
    site.faults[PATH] = [Cut(1000), Cut(50_000)]
    download.fetch(site.url + PATH, tmp_path / "PACS.zip", SHA256)
    assert len(site.requests) == 3


def test_a_weak_tag_is_no_version_to_continue_from(site: Site, tmp_path: Path) -> None:
    """HTTP compares weak tags with nothing; the date of the file will do, where there is one."""
    site.weak = True
    site.faults[PATH] = [Cut(1000)]
    download.fetch(site.url + PATH, tmp_path / "one.zip", SHA256)
    assert site.ranges(PATH) == ["", ""]
    site.requests.clear()
    site.modified = "Mon, 02 Nov 2026 10:00:00 GMT"
    site.faults[PATH] = [Cut(1000)]
    download.fetch(site.url + PATH, tmp_path / "two.zip", SHA256)
    assert site.ranges(PATH) == ["", "bytes=1000-"]


@pytest.mark.parametrize("by", [-300, 300])
def test_another_range_than_was_asked_for_starts_over(site: Site, tmp_path: Path, by: int) -> None:
    site.faults[PATH] = [Cut(1000), Shifted(by)]
    download.fetch(site.url + PATH, tmp_path / "PACS.zip", SHA256)
    assert site.ranges(PATH) == ["", "bytes=1000-", ""]


def test_a_file_that_only_lacks_its_name(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "PACS.zip"
    (tmp_path / "PACS.zip.part").write_bytes(CONTENT)
    (tmp_path / "PACS.zip.tag").write_text(f'"{SHA256}"')
    download.fetch(site.url + PATH, target, SHA256)
    assert site.ranges(PATH) == [f"bytes={len(CONTENT)}-"]
    assert list(tmp_path.iterdir()) == [target]


def test_wrong_checksum(site: Site, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=f"PACS.zip should have the sha256 {'0' * 64}. Found {SHA256}. The file was del"
    ):
        download.fetch(site.url + PATH, tmp_path / "PACS.zip", "0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (403, "403 Forbidden"), (410, "410 Gone")])
def test_refusals_are_not_tried_again(site: Site, tmp_path: Path, status: int, words: str) -> None:
    site.faults[PATH] = [status]
    with pytest.raises(UserError, match=f"PACS.zip answers {words}: the file is gone, has moved, or is not public"):
        download.fetch(site.url + PATH, tmp_path / "PACS.zip")
    assert len(site.requests) == 1


def test_a_server_that_stays_busy(site: Site, tmp_path: Path) -> None:
    site.faults[PATH] = [503] * 9
    with pytest.raises(UserError, match=r"answers 503 Service Unavailable, 5 times in a row without progress. 0 bytes"):
        download.fetch(site.url + PATH, tmp_path / "PACS.zip")


def test_a_web_page_is_no_archive(site: Site, tmp_path: Path) -> None:
    site.types[PATH] = "text/html; charset=utf-8"
    with pytest.raises(
        UserError, match="answers with a web page instead of a file: the file has moved, or requires a log"
    ):
        download.fetch(site.url + PATH, tmp_path / "PACS.zip")


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers at all, no second attempt is made."""
    monkeypatch.setattr(download, "PAUSE_S", 1000.0)
    with serve() as closed:
        url = closed.url
    with pytest.raises(UserError, match=r"^127\.0\.0\.1 cannot be reached \(Connection refused\)\.$"):
        download.fetch(f"{url}/PACS.zip", tmp_path / "PACS.zip")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/PACS.zip", "PACS.zip", "http://[::1/PACS.zip"])
def test_addresses_that_are_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"PACS.zip cannot be downloaded: "):
        download.fetch(url, tmp_path / "PACS.zip")


def test_disk_too_small(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=204_799))
    with pytest.raises(NoSpace, match=r"unpacking PACS.zip needs 204.8 kB in \S+. Found 204.8 kB free. Free some"):
        download.fetch(site.url + PATH, tmp_path / "PACS.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=204_800))
    download.fetch(site.url + PATH, tmp_path / "PACS.zip", SHA256)


def test_disk_that_fills_up_while_writing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "PACS.zip.part").symlink_to("/dev/full")
    with pytest.raises(NoSpace, match=r"No space is left for \S+PACS.zip. What was downloaded so far is kept: free"):
        download.fetch(site.url + PATH, tmp_path / "PACS.zip")
    assert not (tmp_path / "PACS.zip").exists()


def test_a_folder_that_cannot_be_written_to(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write \S+/file: .*. Choose another --data_dir."):
        download.fetch(site.url + PATH, tmp_path / "file" / "PACS.zip")


class Drive:
    """gdown's `download`, which writes its answer to the output file or raises it."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.asked = answer, {}

    def download(self, **arguments: object) -> None:
        self.asked = arguments
        if isinstance(self.answer, Exception):
            raise self.answer
        Path(str(arguments["output"])).write_bytes(self.answer)


def test_google_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "PACS.zip"
    gdown = Drive(CONTENT)
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    assert download.fetch_drive("some_id", target) == SHA256
    assert gdown.asked == {"id": "some_id", "output": str(target), "resume": True, "use_cookies": False, "retries": 5}
    gdown.answer = RuntimeError("Too many users have viewed or\n\tdownloaded this file recently.")
    with pytest.raises(
        UserError, match="Google Drive does not give file some_id: Too many users have viewed or downlo"
    ):
        download.fetch_drive("some_id", target)
    gdown.answer = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(NoSpace, match=r"No space is left for \S+PACS.zip"):
        download.fetch_drive("some_id", target)
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match=r"Google Drive needs gdown. Install it with: pip install 'domainbed-sage\[dri"):
        download.fetch_drive("some_id", target)


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (18e9, "18.0 GB")]
)
def test_sizes_for_people(size: float, words: str) -> None:
    assert disk.readable(size) == words
