"""`domainbed-sage data` and `scripts/download.py`: what they tell."""

import importlib.util
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import generated_trees as trees
import pytest
from local_server import serve

from domainbed_sage import cli
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.sources import Urls
from domainbed_sage.data.specs import datasets


def test_the_command_line_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "download", "PACS", "--source", "moon", "--data_dir", str(tmp_path)]) == 2
    assert "PACS has no such source. Known: hub, original, copy, parquet." in capsys.readouterr().err
    assert cli.main(["data", "download", "EmojiStyles"]) == 2
    assert "EmojiStyles is inside the package: there is nothing to download." in capsys.readouterr().err
    assert cli.main(["data", "list"]) == 0
    listing = capsys.readouterr().out
    assert "24330 images (variant 24330): 4741 + 9736 + 3970 + 5883" in listing
    source = "source original: Boston University, the archives of M3SDA (cleaned clipart and painting)"
    assert source in " ".join(listing.split())


def test_the_script_gets_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(__file__).parents[2] / "scripts" / "download.py"
    described = importlib.util.spec_from_file_location("download_script", path)
    assert described is not None
    assert described.loader is not None
    script = importlib.util.module_from_spec(described)
    described.loader.exec_module(script)
    trees.plant(tmp_path / "PACS", trees.few(datasets["PACS"]), "two of each")
    with serve() as site:
        source = Urls("original", "the first host", (f"{site.url}/images.zip",))
        monkeypatch.setattr(script, "find", lambda name: replace(datasets[name], sources=(source,)))
        with pytest.raises(UserError, match=r"(?s)VLCS could not be had from its source.*TerraIncognita could not be"):
            script.main(Namespace(data_dir=tmp_path, datasets=["VLCS", "PACS", "TerraIncognita"]))
    assert "PACS: 56 images in " in capsys.readouterr().out
