"""Rows that share an algorithm, and sweeps that share a results folder."""

import pytest

from domainbed_sage.cli import main

pytestmark = pytest.mark.usefixtures("forget_plugins", "restore_signals")

HEAD = """
name: {name}
datasets: [EmojiStyles]
model: small_cnn
test_envs: [[0]]
trials: {trials}
steps: 2
checkpoint_freq: 1
hparams: {{width: 8, batch_size: 2}}
algorithms:
"""
ROWS = """
  SAGE: {}
  SAGE_without_noise: {algorithm: SAGE, gamma: 0.0}
  SGD: {algorithm: ERM, optimizer: sgd, lr: 1e-2}
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """Run a sweep into the folder `out`, or do something else with it, and return what is printed."""
    monkeypatch.chdir(tmp_path)

    def call(action, name, rows, trials=1, *more):
        (tmp_path / f"{name}.yaml").write_text(HEAD.format(name=name, trials=trials) + rows)
        device = ["--device", "cpu", "--cluster", "debug"] if action == "launch" else []
        assert main(["sweep", action, f"{name}.yaml", "--output_dir", "out", *device, *more]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture
def table(capsys):
    """The rows of the first printed table by label, and all that is printed."""

    def call():
        assert main(["table", "out"]) == 0
        printed = capsys.readouterr().out
        lines = printed.split("\n\n")[0].partition("\nAlgorithm ")[2].splitlines()[1:]
        return {line.split()[0]: line for line in lines}, printed

    return call


def test_rows_of_one_algorithm(sweep, table):
    sweep("launch", "a", ROWS)
    assert list(table()[0]) == ["SAGE", "SAGE_without_noise", "SGD"]
    assert "SAGE_without_noise" in sweep("status", "a", ROWS)
    for name in ("SAGE", "ERM"):  # folders are named after the algorithm: the label is not part of the science
        assert f"EmojiStyles-{name}-env0" in sweep("list", "a", ROWS)


def test_a_gap_of_one_sweep_is_seen_after_another_one(sweep, table, tmp_path):
    """What a sweep lacks stays missing when a second one has written its own plan beside it."""
    sweep("launch", "a", "  ERM: {}\n", 2)
    (lost,) = (tmp_path / "out").glob("*-trial1-*")
    lost.rename(tmp_path / "gone")
    sweep("launch", "b", "  SAM: {rho: 0.05}\n", 2)
    rows, printed = table()
    assert "(1/2)" in rows["ERM"] or "*" in rows["ERM"]
    assert "(1/2)" not in rows["SAM"]
    assert "ERM" in printed.partition("Missing")[2]
