"""Which checksum of a weight file counts, and where weights lie for a user without a home."""

import hashlib
import pwd

import pytest
from clip_cases import TINY, random_state, write_archive, write_checkpoint
from open_clip import pretrained

from domainbed_sage.core.errors import UserError
from domainbed_sage.models import weights

STATE = random_state(TINY)
OPENAI = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty weights' folder."""
    monkeypatch.setenv("DOMAINBED_WEIGHTS_DIR", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """OpenAI's format."""
    return write_archive(STATE, tmp_path_factory.mktemp("archive") / "ViT-B-16.pt")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def publish(monkeypatch, name, address):
    monkeypatch.setitem(pretrained._PRETRAINED["ViT-B-16"], name, {"url": f"http://127.0.0.1/{address}"})


def test_the_published_sum_stands_over_the_one_beside_the_file(folder, archive, monkeypatch):
    """Whoever exchanged the file has exchanged the sum beside it, too."""
    content = archive.read_bytes()
    (folder / "openai.pt").write_bytes(content)
    (folder / "openai.pt.sha256").write_text(f"{sha256(content)}  openai.pt\n")
    with pytest.raises(UserError, match=rf"openai\.pt should have sha256 {OPENAI}\. Found {sha256(content)}\."):
        weights.find("openai")
    publish(monkeypatch, "openai", f"{sha256(content)}/ViT-B-16.pt")
    (folder / "openai.pt.sha256").write_text(f"{'0' * 64}  openai.pt\n")  # of a file that lay there before
    assert weights.find("openai") == folder / "openai.pt"


def test_both_sums_count_where_a_part_is_published(folder, archive, monkeypatch):
    content = archive.read_bytes()
    (folder / "laion400m_e32.pt").write_bytes(content)
    publish(monkeypatch, "laion400m_e32", f"x-{sha256(content)[:8]}.pt")
    assert weights.find("laion400m_e32")
    (folder / "laion400m_e32.pt.sha256").write_text(sha256(content)[:8] + "0" * 56)
    with pytest.raises(UserError, match=r"should have sha256 .*laion400m_e32\.pt\.sha256 beside it says so"):
        weights.find("laion400m_e32")
    (folder / "laion400m_e32.pt.sha256").write_text(sha256(content))
    publish(monkeypatch, "laion400m_e32", "x-00000000.pt")
    with pytest.raises(UserError, match=r"should have sha256 00000000\. Found"):
        weights.find("laion400m_e32")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", b"abc  mine.bin\n", b"<html>" * 20, b"0" * 63 + b"x"])
def test_a_sum_that_is_none(folder, content):
    write_checkpoint(STATE, folder / "mine.bin")
    (folder / "mine.bin.sha256").write_bytes(content)
    with pytest.raises(
        UserError, match=r"mine\.bin\.sha256 should begin with a sha256, 64 hexadecimal digits\. Found b'"
    ):
        weights.find("mine")


def test_nobodys_home(monkeypatch, tmp_path):
    """A container with an arbitrary user; only what needs its home says so, and what to set."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("DOMAINBED_WEIGHTS_DIR")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    path = write_checkpoint(STATE, tmp_path / "mine.pt")
    assert weights.find(str(path)) == path
    assert weights.weights_dir(tmp_path) == tmp_path
    for look in (weights.weights_dir, lambda: weights.find("openai")):
        with pytest.raises(UserError, match=r"Set HOME to a folder, or DOMAINBED_WEIGHTS_DIR to the folder of the"):
            look()
    with pytest.raises(UserError, match=r"~/mine\.pt cannot be found: .*or give the path without ~"):
        weights.find("~/mine.pt")
