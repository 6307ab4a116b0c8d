"""Fixtures for launches with a Slurm that keeps a queue and runs nothing."""

import pytest
from launches import TEXT, results

from domainbed_sage.cli import main


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "s.yaml").write_text(TEXT)
    return tmp_path / "s.yaml"


@pytest.fixture
def say(sweep, fake_slurm, capsys):
    """One `sweep` command; returns what it says."""

    def call(action, *words, status=0):
        places = ["--output_dir", str(results(sweep))]
        assert main(["sweep", action, str(sweep), *places, *map(str, words)]) == status
        said = capsys.readouterr()
        return said.out if status == 0 else said.err

    return call


@pytest.fixture
def launch(say):
    return lambda *words, **options: say("launch", *("--gres", "gpu:1", "--min-free-gb", 0), *words, **options)
