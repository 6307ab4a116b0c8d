"""The example scripts run as printed in their first lines, and give what they promise."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import sweep_folder

import domainbed_sage as dg
from domainbed_sage.data.specs import datasets
from domainbed_sage.models import models

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PNG = b"\x89PNG\r\n"


def run(name, monkeypatch, *arguments):
    """Run a script as `python name arguments` would, and return its names."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture
def forget_all(forget_plugins, monkeypatch):
    for registry in (datasets, models):
        monkeypatch.setattr(registry, "_things", dict(registry._things))


def test_there_are_no_others():
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {
        "figure_of_my_own.py",
        "my_algorithm_dataset_backbone.py",
    }


def test_my_algorithm_dataset_backbone(forget_all, tmp_path, monkeypatch, capsys):
    run("my_algorithm_dataset_backbone.py", monkeypatch, tmp_path)
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [row for row in rows if row in ("ERM", "ANDMask")] == ["ERM", "ANDMask"]
    frame = dg.load_results(tmp_path / "results")
    assert set(frame["environment"]) == {"black_on_white", "coloured", "white_on_black"}
    assert set(frame["model"]) == {"tiny"}
    assert sorted(set(frame["step"])) == [0, 10, 20, 30]
    assert len(frame) == 6 * 4 * 3 * 2


NAN = float("nan")


def test_figure_of_my_own(tmp_path, monkeypatch):
    """Selected are steps 0 and 20; the held-out environment was not evaluated at the others, and not at the last."""
    ins = [[acc, 0.9, 0.9] for acc in (0.3, NAN, 0.4, NAN)]
    outs = [[0.1, *both] for both in ((0.5, 0.6), (0.5, 0.6), (0.9, 0.4), (0.6, 0.6))]
    sweep_folder.write(tmp_path, sweep_folder.records(ins, outs))
    sweep_folder.write(tmp_path, sweep_folder.records(ins, outs, test_envs=[0, 1]))
    sweep_folder.write_flat(tmp_path, [0.5, 0.6, 0.7], dataset="VLCS", algorithm="SAGE")
    sweep_folder.write_flat(tmp_path, [0.5, 0.6, 0.7], dataset="VLCS", algorithm="SAM")
    names = run("figure_of_my_own.py", monkeypatch, tmp_path, tmp_path / "figure.png", "ERM", "SAGE")
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG)
    points = names["selected_so_far"](dg.load_results(tmp_path))
    pacs = points[points["dataset"] == "PACS"]
    np.testing.assert_array_equal(pacs["step"], [0, 10, 20, 30])
    np.testing.assert_array_equal(pacs["accuracy"], [0.3, 0.3, 0.4, 0.4])
    figure = names["figure"](points)
    assert [panel.get_title() for panel in figure.axes] == ["VLCS", "PACS"]
    assert [len(panel.lines) for panel in figure.axes] == [2, 1]
    assert len({line.get_color() for panel in figure.axes for line in panel.lines}) == 3
    assert {text.get_text() for text in figure.legends[0].texts} == {"ERM", "SAGE", "SAM"}
    (line,) = figure.axes[1].lines
    np.testing.assert_allclose(line.get_ydata(), [30, 30, 40, 40])


def test_the_last_point_of_the_figure_is_the_table(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for env in range(3):
        for trial in range(2):
            ins, outs = rng.random((2, 5, 3)).round(2).tolist()
            sweep_folder.write(tmp_path, sweep_folder.records(ins, outs, test_envs=[env], trial=trial))
    names = run("figure_of_my_own.py", monkeypatch, tmp_path, tmp_path / "figure.svg", "ERM")
    points = names["selected_so_far"](dg.load_results(tmp_path))
    last = points[points["step"] == 40]["accuracy"]
    assert sorted(last) == sorted(dg.table(tmp_path).results["test_acc"])
