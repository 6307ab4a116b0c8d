"""`predictions`, and the demo of several tasks, on a light network and few rooms."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import on_cpu
from PIL import Image

from domainbed_sage.cli import demo, main
from domainbed_sage.core.errors import UserError
from domainbed_sage.data.multitask import rooms
from domainbed_sage.data.multitask.base import task_datasets
from domainbed_sage.results import task_runs
from domainbed_sage.sweeps import local
from domainbed_sage.sweeps.local import Outcome
from domainbed_sage.training import finished, task_predictions, train

SWEEP = """
name: few
datasets: [Rooms]
model: scene_unet
trials: 1
steps: 2
checkpoint_freq: 2
hparams: {width: 1, batch_size: 2, augment: none}
algorithms:
  STL-segmentation: {algorithm: ERM, only_task: segmentation}
  STL-depth: {algorithm: ERM, only_task: depth}
  STL-normal: {algorithm: ERM, only_task: normal}
  LS: {algorithm: ERM, solver: LS}
"""


def in_this_process(runs, machine, jobs):
    """The few rooms are known to this process alone."""
    del jobs
    for run in runs:
        train.run(run, replace(machine, output_dir=machine.output_dir / run.folder_name))
    return Outcome(len(runs), 0, {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The results folder of the demo with another sweep, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "few.yaml").write_text(SWEEP)
    usual = task_datasets["Rooms"]
    few = replace(usual, load=lambda root: rooms.load(3, 2, size=(32, 48)), counts={"train": 3, "test": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(task_datasets._things, "Rooms", few)
        patch.setattr(demo, "shipped", lambda preset: folder / "few.yaml")
        patch.setattr(local, "run_missing", in_this_process)
        assert main(["demo", "multitask", "--output_dir", str(folder / "out")]) == 0
        yield folder / "out"


def test_the_demo_leaves_its_table_and_pictures(trained):
    table = (trained / "tasks.md").read_text()
    assert [row in table for row in ("Trivial", "STL", "LS", "Δm")] == [True] * 4
    for name in ("tasks.png", "predictions.png"):
        pixels = np.asarray(Image.open(trained / name).convert("L"))
        assert pixels.std() > 10, name


def test_predictions_are_those_of_the_networks_for_the_samples_in_their_order(trained, tmp_path):
    """A row of networks for one task each has the outputs of all of them."""
    found = task_runs.load(trained).runs
    folders = {run.only_task or "all": trained / run.name for run in found}
    alone = [folders[task] for task in ("segmentation", "depth", "normal")]
    predicted = task_predictions.predicted({"STL": alone, "LS": [folders["all"]]}, on_cpu(tmp_path), [1, 0])
    test = rooms.load(3, 2, size=(32, 48)).test
    for at, number in enumerate((1, 0)):
        image, targets = test[number]
        assert torch.equal(torch.tensor(predicted.images[at]), image)
        for own, target in zip(predicted.truth.values(), targets, strict=True):
            assert torch.equal(torch.tensor(own[at]), target)
    assert list(predicted.truth) == list(predicted.words) == ["segmentation", "depth", "normal"]
    assert predicted.numbers == (1, 0)
    x = torch.stack([test[number][0] for number in (1, 0)])
    for row, runs in (("STL", alone), ("LS", [folders["all"]])):
        made = [finished.load(finished.read(run), on_cpu(tmp_path)).algorithm for run in runs]
        with torch.inference_mode():
            outputs = [output for own in made for output in own.objectives.predict(x)]
        for ours, output in zip(predicted.rows[row].values(), outputs, strict=True):
            assert torch.equal(torch.tensor(ours), output)


def test_runs_are_of_one_dataset(monkeypatch, tmp_path):
    config = {name: SimpleNamespace(config=SimpleNamespace(dataset=name)) for name in ("NYUv2", "PACS", "Rooms")}
    monkeypatch.setattr(finished, "read", lambda folder: config[folder.name])
    for names, said in (([], "no run"), (["NYUv2", "Rooms"], "NYUv2', 'Rooms"), (["PACS"], "PACS")):
        with pytest.raises(UserError, match=f"one dataset of several tasks. Found .*{said}"):
            task_predictions.predicted({name: [Path(name)] for name in names}, on_cpu(tmp_path), [0])


def test_chosen_rows_samples_and_formats(trained, tmp_path, capsys):
    words = ["--samples", "1", "--algorithms", "LS", "--format", "svg", "--out", str(tmp_path)]
    assert main(["predictions", str(trained), *words]) == 0
    assert capsys.readouterr().out == f"Wrote {tmp_path / 'predictions.svg'}\n"
    drawn = (tmp_path / "predictions.svg").read_text()
    assert "sample 1" in drawn
    assert "sample 0" not in drawn
    assert "STL" not in drawn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "0", "2"], r"Rooms has the test samples 0 to 1. Found [2]."),
        (["--samples", "-1"], r"Rooms has the test samples 0 to 1. Found [-1]."),
        (["--algorithms", "LS", "MGDA"], r"has no row 'MGDA'. Known: LS, STL."),
        (["--trial", "1"], r"No run of trial 1 in"),
    ],
)
def test_what_is_not_there(trained, words, message, tmp_path, capsys):
    assert main(["predictions", str(trained), *words, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_weights(trained, tmp_path, capsys):
    (run,) = (path for path in trained.glob("*/run.json") if '"only_task":"depth"' in path.read_text().replace(" ", ""))
    weights = run.parent / "model.pkl"
    hidden = weights.rename(weights.with_suffix(".hidden"))
    try:
        assert main(["predictions", str(trained), "--out", str(tmp_path)]) == 2
    finally:
        hidden.rename(weights)
    assert "--skip_model_save" in capsys.readouterr().err


def test_evaluate_says_what_to_use(trained, capsys):
    (first, *_) = (path.parent for path in trained.glob("*/model.pkl"))
    assert main(["evaluate", str(first)]) == 2
    assert "`domainbed-sage predictions` draws those of tasks" in capsys.readouterr().err
