"""Sweep files by name: found from anywhere, unless a file of that name is there."""

from pathlib import Path

import pytest
from sweep_files import SMALL

from domainbed_sage.cli import main
from domainbed_sage.core import resources
from domainbed_sage.core.errors import UserError
from domainbed_sage.sweeps.presets import locate, presets


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names():
    assert {"demo", "table1", "zero_shot"} <= set(presets())
    assert locate(Path("table1")) == locate(Path("table1.yaml")) == presets()["table1"]
    assert presets()["table1"].is_absolute()


def test_a_file_wins_over_a_name_and_a_folder_does_not():
    Path("demo").mkdir()
    assert locate(Path("demo")) == presets()["demo"]
    Path("table1").write_text(SMALL)
    assert locate(Path("table1")) == Path("table1")
    Path("mine").mkdir()
    assert locate(Path("mine")) == Path("mine")


def test_neither():
    with pytest.raises(
        UserError, match=r"tabel1 does not exist, .* Did you mean 'table1'\? Presets: demo, .*zero_shot"
    ):
        locate(Path("tabel1"))
    with pytest.raises(UserError, match=r"Sweep file my/demo does not exist"):
        locate(Path("my/demo"))


def test_an_installed_package_carries_them(tmp_path, monkeypatch):
    """Beside the package there is no folder `sweeps`."""
    package = tmp_path / "site-packages" / "domainbed_sage"
    (package / "_shipped" / "sweeps").mkdir(parents=True)
    (package / "_shipped" / "sweeps" / "only.yaml").write_text(SMALL)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert list(presets()) == ["only"]


def test_the_command_takes_a_name(capsys):
    assert main(["sweep", "list", "demo"]) == 0
    assert "24 runs: 24 missing" in capsys.readouterr().out
    assert main(["sweep", "plan", "dmo"]) == 2
    assert "Did you mean 'demo'?" in capsys.readouterr().err
