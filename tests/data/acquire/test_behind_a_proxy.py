"""Downloads where environment variables name proxies and certificates, right ones and wrong ones."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import generated_trees as trees
import httpx2
import pytest
from local_server import Site, serve

from domainbed_sage.core.errors import UserError
from domainbed_sage.data.acquire import download
from domainbed_sage.data.acquire.obtain import obtain
from domainbed_sage.data.sources import Own, Source, Urls
from domainbed_sage.data.specs import datasets

PATH = "/data/PACS.zip"
PACS = replace(datasets["PACS"], size_bytes=10**6)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with serve() as running:
        running.files[PATH] = b"content"
        yield running


def test_a_wrong_variable_is_told_once_whatever_the_sources(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only where the network is asked: one's own copy needs none."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    sources: tuple[Source, ...] = tuple(Urls(key, key, (site.url + PATH,)) for key in ("one", "two"))
    with pytest.raises(UserError) as caught:
        obtain(PACS, tmp_path / "data", sources)
    assert str(caught.value).count("REQUESTS_CA_BUNDLE should be ") == 1
    assert site.requests == []
    assert not (tmp_path / "data").exists()
    copy = trees.plant(tmp_path / "PACS", trees.few(PACS), same=False)
    obtain(PACS, tmp_path / "data", (Own((copy,)),), subset="two of each")


def test_a_wrong_variable_is_told_before_the_server_is_asked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
    with pytest.raises(UserError, match="ALL_PROXY should be the address of a proxy"):
        download.fetch(site.url + PATH, tmp_path / "PACS.zip")
    assert site.requests == []
    assert list(tmp_path.iterdir()) == []


def test_a_proxy_that_does_not_answer_is_named(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"It goes through the proxy 127\.0\.0\.1:9 of http_proxy: correct the variable"
    ):
        download.fetch(site.url + PATH, tmp_path / "PACS.zip")
    assert site.requests == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "with its certificate (PEM) in SSL_CERT"),
        (
            httpx2.ProxyError("407 Proxy Authentication Required"),
            "the proxy answers 407 Proxy Authentication Required.",
        ),
    ],
)
def test_what_no_second_attempt_mends_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    asked = []

    def stream(client: httpx2.Client, *request: str, **options: object) -> None:
        asked.append(request)
        raise error

    monkeypatch.setattr(httpx2.Client, "stream", stream)
    with pytest.raises(UserError, match=re.escape(words)):
        download.fetch("https://files.example/PACS.zip", tmp_path / "PACS.zip")
    assert len(asked) == 1
