"""Users without a home, homes with odd names, results that can only be read: commands that need neither go on."""

import errno
import os
import pwd
from pathlib import Path

import pytest
from helpers import run, small_config

from domainbed_sage.cli import main
from domainbed_sage.core.resources import shipped
from domainbed_sage.sweeps.cluster import ledger, site


@pytest.fixture
def no_home(monkeypatch):
    """A container with an arbitrary user: no HOME, no name, and no entry for the user."""
    for name in ("HOME", "XDG_CONFIG_HOME", "DOMAINBED_WEIGHTS_DIR", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))


def status(*words):
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["sweep", "launch", "--help"],
        ["data", "list"],
        ["list", "optimizers"],
        ["sweep", "list", shipped("sweeps/demo.yaml")],
    ],
)
def test_without_a_home(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert status(*words) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_home")
def test_what_needs_a_home_says_so(capsys):
    for words in (["weights", "list"], ["weights", "check", "openai"]):
        assert status(*words) == 2
        assert "Set HOME to a folder, or DOMAINBED_WEIGHTS_DIR" in capsys.readouterr().err


@pytest.mark.usefixtures("no_home")
def test_a_launcher_without_a_name():
    assert ledger.Array("a", ()).user == str(os.getuid())


@pytest.mark.usefixtures("no_home")
def test_without_a_home_there_is_no_site_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not site.default_file().is_file()


def test_a_home_with_a_percent_sign(monkeypatch, capsys, tmp_path):
    """argparse takes it for a placeholder."""
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "100%s"))
    assert status("sweep", "launch", "--help") == 0
    assert "~/.config/domainbed-sage/cluster.yaml" in "".join(capsys.readouterr().out.split())
    assert site.default_file() == tmp_path / "100%s" / ".config" / "domainbed-sage" / "cluster.yaml"


# Results that can only be read


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    run(small_config(steps=1), folder / "run")
    return folder


@pytest.fixture
def read_only(results, monkeypatch):
    """As on a file system that is mounted read-only; root may write to every other one."""
    open_file = Path.open

    def refuse(path, mode="r", *options, **more):
        if set(mode) & set("wax") and results in path.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return open_file(path, mode, *options, **more)

    monkeypatch.setattr(Path, "open", refuse)
    return results


def test_tables_of_results_that_can_only_be_read(read_only, capsys, tmp_path):
    before = sorted(read_only.rglob("*"))
    assert status("table", read_only, "--selection", "all") == 0
    printed = capsys.readouterr()
    assert printed.out.count("model selection method") >= 3
    assert "Tables can be written elsewhere with --out DIR." in " ".join(printed.err.split())
    assert "Wrote" not in printed.out
    assert sorted(read_only.rglob("*")) == before
    assert status("table", read_only, "--out", tmp_path) == 0
    assert (tmp_path / "table.md").exists()


def test_tables_of_results_that_can_be_written(results, capsys):
    assert status("table", results) == 0
    assert (results / "table.md").exists()
    assert "Wrote" in capsys.readouterr().out
