"""Fetch a file over HTTP, continuing where an earlier attempt ended.

Hugging Face's own library and pooch start a file over when a process ends, which is not good enough for archives of
15 GB; so the bytes come through httpx2, the HTTP library of recent versions of huggingface_hub, whatever the host.
"""

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from tqdm import tqdm

from domainbed_sage.core import network
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.files import digest, flush
from domainbed_sage.data.acquire import disk

ATTEMPTS = 5
PAUSE_S = 1.0
TIMEOUT_S = 30.0
BUSY = (408, 425, 429, 500, 502, 503, 504)
KEPT = "What was downloaded so far is kept: free some space and start the same command again, it continues."


class _Interrupted(Exception):  # noqa: N818 - not an error yet: it is retried
    """The transfer broke off, or the server is busy."""


def fetch(url: str, path: Path, sha256: str | None = None) -> str:
    """Download a file; it appears at `path` only when it is complete.

    An interrupted transfer stays beside it as ``<path>.part`` and is continued, now or by a later call, if the server
    still has the same file (by its ETag or date); otherwise it starts over.

    Args:
        url: where from.
        path: where to; a file that is there already is checked and kept.
        sha256: what the file must hash to.

    Returns:
        its sha256.

    Raises:
        UserError: an environment variable is wrong, the host cannot be reached or refuses, the connection breaks again
            and again, or the file is not the expected one.
        NoSpace: the disk is full.
    """
    if not path.exists():
        network.check_variables()
        with disk.explained(path, KEPT):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = _Part(path)
            with httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S) as client:
                _persist(client, url, part)
            part.file.replace(path)
            part.clear()
    found = digest(path)
    if sha256 is not None and found != sha256:
        path.unlink()
        raise UserError(
            f"{url} should have the sha256 {sha256}. Found {found}. The file was deleted; start the same command again "
            f"to download it again. If that does not help, the file at the source has changed."
        )
    return found


def fetch_drive(file_id: str, path: Path) -> str:
    """Download a file from Google Drive with gdown, which keeps and continues partial files; returns its sha256.

    Raises:
        UserError: gdown is not installed, or Google refuses.
        NoSpace: the disk is full.
    """
    try:
        gdown: Any = importlib.import_module("gdown")
    except ImportError:
        raise UserError("Google Drive needs gdown. Install it with: pip install 'domainbed-sage[drive]'") from None
    with disk.explained(path, KEPT):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            gdown.download(id=file_id, output=str(path), resume=True, use_cookies=False, retries=ATTEMPTS)
        except Exception as error:  # gdown raises its own, requests' and the system's
            if getattr(error, "errno", None) is not None:
                raise
            words = " ".join(str(error).split())
            raise UserError(f"Google Drive does not give file {file_id}: {words[:300]}") from None
    return digest(path)


class _Part:
    """An unfinished file, and the tag by which the server recognises the version that it began with."""

    def __init__(self, path: Path) -> None:
        self.file = path.with_name(path.name + ".part")
        self._tag = path.with_name(path.name + ".tag")

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def headers(self) -> dict[str, str]:
        """Ask for the rest, if the tag still holds; for everything otherwise."""
        whole = {"Accept-Encoding": "identity"}
        if not (self.size and self._tag.exists()):
            return whole
        return whole | {"Range": f"bytes={self.size}-", "If-Range": self._tag.read_text(encoding="utf-8")}

    def begin(self, response: httpx2.Response) -> None:
        """Discard what was fetched before, and remember the version that is sent now."""
        self.file.write_bytes(b"")
        tag = response.headers.get("ETag", "")
        if not tag or tag.startswith("W/"):
            tag = response.headers.get("Last-Modified", "")
        self._tag.unlink(missing_ok=True)
        if tag:
            self._tag.write_text(tag, encoding="utf-8")

    def clear(self) -> None:
        self.file.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)


def _persist(client: httpx2.Client, url: str, part: _Part) -> None:
    """Retry until the file is complete; give up after several attempts in a row without progress."""
    failures, most = 0, part.size
    while True:
        try:
            with _broken_off(url):
                return _transfer(client, url, part)
        except _Interrupted as reason:
            if not (failures or part.size):
                network.check_reachable(url)
            failures = 0 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures == ATTEMPTS:
                raise UserError(
                    f"{reason}, {ATTEMPTS} times in a row without progress. {disk.readable(part.size)} are kept in "
                    f"{part.file}: start the same command again to continue.{network.advice(url)}"
                ) from None
            time.sleep(PAUSE_S * 2**failures)


@contextmanager
def _broken_off(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
        raise UserError(f"{url} cannot be downloaded: {error}") from None
    except httpx2.ProxyError as error:
        raise UserError(f"{url} cannot be downloaded, the proxy answers {error}.{network.advice(url)}") from None
    except httpx2.RequestError as error:
        if network.unverified(error):
            raise UserError(f"{url} cannot be downloaded: {error}.{network.advice(url)} {network.UNVERIFIED}") from None
        raise _Interrupted(f"The connection to {url} breaks ({type(error).__name__}: {error})") from None


def _transfer(client: httpx2.Client, url: str, part: _Part) -> None:
    """One request: the rest of the file, or all of it."""
    with client.stream("GET", url, headers=part.headers()) as response:
        if response.status_code == 416:
            if response.headers.get("Content-Range") == f"bytes */{part.size}":
                return  # complete already: only the rename was missing
            part.clear()
            raise _Interrupted(f"{url} is now shorter than what came before")
        _refuse(url, response)
        if response.status_code != 206:
            part.begin(response)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-"):
            part.clear()
            raise _Interrupted(f"{url} sends another range than the one that was asked for")
        _receive(response, part)


def _receive(response: httpx2.Response, part: _Part) -> None:
    length = int(response.headers.get("Content-Length", 0))
    name, start = part.file.name.removesuffix(".part"), part.size
    disk.require(part.file.parent, start + 2 * length, f"Downloading and unpacking {name}")
    bar = tqdm(desc=name, initial=start, total=start + length or None, unit="B", unit_scale=True, disable=None)
    with bar, part.file.open("ab") as file:
        for chunk in response.iter_raw():
            file.write(chunk)
            bar.update(len(chunk))
        flush(file)


def _refuse(url: str, response: httpx2.Response) -> None:
    status = f"{response.status_code} {response.reason_phrase}"
    if response.status_code in BUSY:
        raise _Interrupted(f"{url} answers {status}")
    if response.status_code >= 300:
        raise UserError(f"{url} answers {status}: the file is gone, has moved, or is not public.")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UserError(f"{url} answers with a web page instead of a file: the file has moved, or requires a login.")
