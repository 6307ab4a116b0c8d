"""A web server on this machine, with ranges and with every fault that a download can meet."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Cut:
    """Break the connection at this byte of the file."""

    at: int


@dataclass(frozen=True)
class Shifted:
    """Send the file from so many bytes after the one that was asked for, and say so."""

    by: int


@dataclass
class Site:
    """What the server serves, and what was asked of it.

    Attributes:
        url: address of the server, without a slash at the end.
        files: path to content.
        types: path to content type, for those that are no octet stream.
        faults: path to what happens to the next requests, one each: a status, a `Cut`, or a range that is `Shifted`.
        forgetful: the server knows no ranges.
        weak: its tags are weak ones, by which no range can be asked for.
        modified: the date that it gives to its files, if any.
        requests: path and Range header of every request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[int | Cut | Shifted]] = field(default_factory=dict)
    forgetful: bool = False
    weak: bool = False
    modified: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def add_hub(self, repo: str, content: Mapping[str, bytes]) -> None:
        """Serve a dataset repository as Hugging Face does."""
        entries = [
            {
                "type": "file",
                "path": path,
                "size": len(data),
                "oid": hashlib.sha1(data).hexdigest(),
                "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130},
            }
            for path, data in content.items()
        ]
        info = {"id": repo, "sha": REVISION, "private": False, "downloads": 0, "likes": 0, "tags": [], "siblings": []}
        for path, value in ((f"/api/datasets/{repo}", info), (f"/api/datasets/{repo}/tree/{REVISION}", entries)):
            self.files[path] = json.dumps(value).encode()
            self.types[path] = "application/json"
        for path, data in content.items():
            self.files[f"/datasets/{repo}/resolve/{REVISION}/{path}"] = data

    def ranges(self, path: str) -> list[str]:
        """The Range headers of the requests for a path; "" for a request without."""
        return [header for asked, header in self.requests if asked == path]


@contextmanager
def serve() -> Iterator[Site]:
    """Run a server for the length of the block."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        path, site = unquote(urlsplit(self.path).path), self.site
        site.requests.append((path, self.headers.get("Range", "")))
        fault = site.faults[path].pop(0) if site.faults.get(path) else None
        if path not in site.files or isinstance(fault, int):
            self.send_error(fault if isinstance(fault, int) else 404)
            return
        content = site.files[path]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        start = self._start(site.modified if site.weak else tag)
        start += fault.by if start and isinstance(fault, Shifted) else 0
        if start > 0 and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f"W/{tag}" if site.weak else tag)
        if site.modified:
            self.send_header("Last-Modified", site.modified)
        self.send_header("Content-Type", site.types.get(path, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : fault.at if isinstance(fault, Cut) else None])

    def _start(self, tag: str) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked or self.site.forgetful or self.headers.get("If-Range", tag) != tag:
            return 0
        return int(asked[1])

    def log_message(self, *args: object) -> None:
        """Stay silent."""
