"""Weights by name: where they lie, checksums, downloads from a local server, and the command."""

import argparse
import hashlib
import http.server
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import safetensors.torch
from clip_cases import TINY, random_state, write_archive, write_checkpoint
from open_clip import pretrained

from domainbed_sage.cli import weights as command
from domainbed_sage.core import network
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import declared
from domainbed_sage.models import clip, models, weights
from domainbed_sage.models.checkpoints import sha256_of

STATE = random_state(TINY)
OPENAI = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty weights' folder, and no way to the network but to this machine."""
    connect = socket.socket.connect

    def only_here(self, address):
        assert address[0] == "127.0.0.1", f"network access to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    monkeypatch.setattr(network, "check_reachable", lambda url: None)
    monkeypatch.setattr(pretrained, "hf_hub_download", unreachable)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DOMAINBED_WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


def unreachable(**call):
    raise OSError(f"no route to {call['repo_id']}")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """OpenAI's format."""
    return write_archive(STATE, tmp_path_factory.mktemp("archive") / "ViT-B-16.pt")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def clip_hparams(**given):
    return {name: h.default for name, h in declared(models["clip_vit_b16"].build).items()} | given


def run(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args([str(word) for word in words]))


# Names and places


def test_table_holds_what_open_clip_publishes():
    assert weights.published_sha256("openai") == OPENAI
    assert weights.published_sha256("laion400m_e32") == "55e67d44"
    assert weights.published_sha256("laion2b_s34b_b88k") == weights.published_sha256("anything") == ""
    assert {"openai", "laion2b_s34b_b88k", "datacomp_xl_s13b_b90k"} <= set(weights.clip_names())
    quick = {name for name in weights.clip_names() if weights.published(name).get("quick_gelu")}
    assert quick == {"openai", "dfn2b", "metaclip_400m", "metaclip_fullcc"}


def test_folder_is_given_or_set_or_the_cache(folder, monkeypatch, tmp_path):
    assert weights.weights_dir(tmp_path) == tmp_path
    assert weights.weights_dir() == folder
    monkeypatch.delenv("DOMAINBED_WEIGHTS_DIR")
    assert weights.weights_dir().parts[-3:] == (".cache", "domainbed_sage", "weights")


@pytest.mark.parametrize("name", ["openai", "laion2b_s34b_b88k"])
def test_missing_weights_name_the_command_before_anything_starts(folder, name):
    spec = models["clip_vit_b16"]
    for start in (lambda: spec.require(clip_hparams(weights=name)), lambda: spec.build(["a"], weights=name)):
        with pytest.raises(UserError) as caught:
            start()
        assert f"\n    domainbed-sage weights download {name}\n" in str(caught.value)
        assert str(folder) in str(caught.value)


def test_missing_files_and_unknown_names_are_explained(folder, tmp_path):
    with pytest.raises(UserError, match=r"There is no weight file .*absent\.pt"):
        weights.find(str(tmp_path / "absent.pt"))
    with pytest.raises(UserError, match=r"Unknown weights 'opennai'.*Known: .*openai, timm:BACKBONE"):
        weights.find("opennai")
    with pytest.raises(UserError, match=r"timm .* does not know the backbone 'resnt50'.* Nearest: resnet50"):
        weights.find("timm:resnt50")
    with pytest.raises(UserError, match=r"'none' cannot be downloaded"):
        weights.download("none")


def test_a_copied_file_has_to_be_the_published_one(folder, archive):
    folder.mkdir()
    (folder / "openai.pt").write_bytes(archive.read_bytes())
    with pytest.raises(UserError, match=rf"openai\.pt should have sha256 {OPENAI}\. Found {sha256_of(archive)}\."):
        models["clip_vit_b16"].require(clip_hparams())


def test_a_file_put_into_the_folder_is_found_by_its_name(folder):
    folder.mkdir()
    write_checkpoint(STATE, folder / "mine.bin")
    assert weights.find("mine") == folder / "mine.bin"
    found = models["clip_vit_b16"].require(clip_hparams(weights="mine", activation="gelu"))
    assert found == {"name": "mine", "sha256": sha256_of(folder / "mine.bin"), "activation": "gelu"}


def test_a_known_file_is_recognised_wherever_it_lies(archive, tmp_path, monkeypatch):
    path = write_checkpoint(STATE, tmp_path / "copied.pt")
    entry = {"url": f"http://127.0.0.1/{sha256_of(path)}/x.pt", "quick_gelu": False}
    monkeypatch.setitem(pretrained._PRETRAINED["ViT-B-16"], "laion400m_e31", entry)
    assert clip.resolve(str(path), "auto") == (path, "gelu")
    with pytest.raises(UserError, match=r"was trained with gelu\. Found activation 'quickgelu'"):
        clip.resolve(str(path), "quickgelu")


# Downloads


@pytest.fixture
def server(archive, monkeypatch):
    """A web server with OpenAI's file; `content` is what it sends, `asked` what it was asked for."""
    said = SimpleNamespace(content=archive.read_bytes(), asked=[])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            said.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(said.content)))
            self.end_headers()
            self.wfile.write(said.content)

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{web.server_port}/clip/{sha256(said.content)}/ViT-B-16.pt"
        monkeypatch.setitem(pretrained._PRETRAINED["ViT-B-16"]["openai"], "url", url)
        yield said
        web.shutdown()
        thread.join()


def test_download_verifies_and_stores_once(server, folder):
    path = weights.download("openai")
    assert path == weights.find("openai") == folder / "openai.pt"
    assert path.read_bytes() == server.content
    assert (folder / "openai.pt.sha256").read_text() == f"{sha256(server.content)}  openai.pt\n"
    assert sorted(p.name for p in folder.iterdir()) == ["openai.pt", "openai.pt.sha256"]
    assert weights.download("openai") == path
    assert len(server.asked) == 1
    found = models["clip_vit_b16"].require(clip_hparams())
    assert found == {"name": "openai", "sha256": sha256(server.content), "activation": "quickgelu"}
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="should have sha256"):
        models["clip_vit_b16"].require(clip_hparams())


def test_what_cannot_be_reached_is_not_asked(folder, monkeypatch):
    """The libraries would try for a minute."""

    def offline(url):
        raise UserError(f"no way to {url}")

    monkeypatch.setattr(network, "check_reachable", offline)
    monkeypatch.setattr(weights, "_fetch_hub", None)
    for name, url in (("laion2b_s34b_b88k", "https://huggingface.co"), ("timm:resnet50.a1_in1k", "https://hugging")):
        with pytest.raises(UserError, match=rf"could not be downloaded:\n  - .*: no way to {url}"):
            weights.download(name)


def test_a_wrong_checksum_leaves_nothing_behind(server, folder):
    server.content = server.content[:-1] + b"x"
    with pytest.raises(UserError) as caught:
        weights.download("openai")
    assert "the published address: the file should have sha256" in str(caught.value)
    assert "the model hub: Failed to download" in str(caught.value)
    assert list(folder.iterdir()) == []


def test_wrong_variables_of_the_network_are_named(server, folder, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(UserError, match="SSL_CERT_FILE should be a file of certificates"):
        weights.download("openai")
    assert (server.asked, folder.exists()) == ([], False)
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("https_proxy", "http://near:9")
    with pytest.raises(UserError, match=r"\nIt goes through the proxy http://near:9 of https_proxy: .*\nRun this on"):
        weights.download("laion2b_s34b_b88k")


def test_what_cannot_be_read_is_not_kept(server, folder, monkeypatch):
    url = (
        pretrained._PRETRAINED["ViT-B-16"]["openai"]["url"].replace("/clip/", "/").replace(sha256(server.content), "x")
    )
    monkeypatch.setitem(pretrained._PRETRAINED["ViT-B-16"]["openai"], "url", url)
    server.content = server.content[:1000]
    with pytest.raises(UserError, match=r"published address: .* cannot be read"):
        weights.download("openai")
    assert list(folder.iterdir()) == []


def hub(folder, content, digest):
    """The model hub's client: a cache of files named by their sha256, and links to them."""

    def fetch(repo_id, filename, revision, cache_dir):
        assert repo_id == "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"
        if filename != "open_clip_model.safetensors":
            raise OSError("no such file")
        blob, link = folder / "blob" / digest, folder / "snapshot" / filename
        for path in (blob, link):
            path.parent.mkdir()
        blob.write_bytes(content)
        link.symlink_to(blob)
        return str(link)

    return fetch


def test_download_from_the_hub(folder, tmp_path, monkeypatch):
    content = safetensors.torch.save(STATE)
    monkeypatch.setattr(pretrained, "hf_hub_download", hub(tmp_path, content, sha256(content)))
    path = weights.download("laion2b_s34b_b88k")
    assert path == folder / "laion2b_s34b_b88k.safetensors"
    assert not path.is_symlink()
    assert path.read_bytes() == content
    assert clip.resolve("laion2b_s34b_b88k", "auto") == (path, "gelu")
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"should have sha256 {sha256(content)}"):
        clip.resolve("laion2b_s34b_b88k", "auto")


def test_the_checksum_of_the_hub_counts(folder, tmp_path, monkeypatch):
    content = safetensors.torch.save(STATE)
    monkeypatch.setattr(pretrained, "hf_hub_download", hub(tmp_path, content, "0" * 64))
    with pytest.raises(UserError, match=f"should have sha256 {'0' * 64}"):
        weights.download("laion2b_s34b_b88k")
    assert list(folder.iterdir()) == []


def test_a_broken_download_from_the_hub_can_be_resumed(folder, monkeypatch):
    """The hub's client is given the same folder again, with what it left there."""
    content, left = safetensors.torch.save(STATE), []

    def broken(cache_dir, **call):
        left.append(Path(cache_dir) / "a.incomplete")
        left[-1].write_bytes(b"half")
        raise OSError("connection lost")

    def resume(cache_dir, **call):
        assert {path: path.read_bytes() for path in Path(cache_dir).iterdir()} == {left[-1]: b"half"}
        return hub(Path(cache_dir), content, sha256(content))(cache_dir=cache_dir, **call)

    monkeypatch.setattr(pretrained, "hf_hub_download", broken)
    with pytest.raises(UserError, match="connection lost"):
        weights.download("laion2b_s34b_b88k")
    monkeypatch.setattr(pretrained, "hf_hub_download", resume)
    weights.download("laion2b_s34b_b88k")
    assert sorted(p.suffix for p in folder.iterdir()) == [".safetensors", ".sha256"]


# The command


def test_list_shows_what_is_stored(server, folder, capsys):
    assert run("list") == 0
    assert "openai: quickgelu; not stored; sha256" in capsys.readouterr().out
    weights.download("openai")
    write_checkpoint(STATE, folder / "mine.bin")
    run("list")
    lines = capsys.readouterr().out.splitlines()
    assert "also stored: mine.bin" in lines
    assert [line for line in lines if "; stored" in line] == ["openai: quickgelu; stored; sha256"]


def test_download_and_check_describe_the_file(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: TINY)
    elsewhere = tmp_path / "elsewhere"
    assert run("download", "openai", "--weights_dir", elsewhere) == 0
    downloaded = capsys.readouterr().out
    assert f"unless DOMAINBED_WEIGHTS_DIR is set to {elsewhere}." in downloaded
    assert run("check", "openai", "--weights_dir", elsewhere) == 0
    assert downloaded.startswith(capsys.readouterr().out)
    tower = [value for name, value in STATE.items() if name.startswith("visual.")]
    assert f"sha256 {sha256(server.content)}" in downloaded
    assert f"image tower: {sum(v.numel() for v in tower):,} values, {len(tower)} tensors, 11 of them" in downloaded
    assert "activation: quickgelu" in downloaded
    unknown = write_checkpoint(STATE, tmp_path / "unknown.pt")
    run("check", unknown)
    assert "activation: not known" in capsys.readouterr().out


def test_check_refuses_another_model(archive):
    with pytest.raises(UserError, match=r"mistakes in .*read as CLIP ViT-B/16:\n  - .*resblocks\.2\.ln_1.* is missing"):
        run("check", archive)


def test_inventory_of_the_full_model():
    expected = clip.expected_tensors()
    tower = {name: size for name, size in expected.items() if name.startswith("visual.")}
    assert (len(expected), sum(size.numel() for size in expected.values())) == (302, 149_620_737)
    assert (len(tower), sum(size.numel() for size in tower.values())) == (152, 86_192_640)
