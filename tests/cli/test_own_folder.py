"""The commands on a folder of images of one's own, from check to evaluation."""

import json
import shutil
from pathlib import Path

import generated_trees as trees
import pytest

from domainbed_sage.cli import main
from domainbed_sage.data import own
from domainbed_sage.data.specs import datasets

pytestmark = pytest.mark.usefixtures("forget_plugins", "restore_signals")
COUNTS = {"hall": {"cat": 6, "dog": 6}, "street": {"cat": 7, "dog": 6}}
SMALL = ["--test_envs", "street", "--device", "cpu", "--checkpoint_freq", "1", "--hparams", '{"batch_size": 2}']
SWEEP = """
name: s
datasets: {Mine: {folder: Cams}}
model: small_cnn
algorithms: [ERM]
trials: 1
steps: 1
hparams: {batch_size: 2}
"""


@pytest.fixture
def say(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trees.plant(tmp_path / "data" / "Cams", COUNTS, same=False)

    def call(*words):
        own._specs.clear()
        for name in ("Cams", "Mine"):
            datasets._things.pop(name, None)  # each command is a process of its own
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return call


def test_list_and_check(say):
    assert "25 images: 12 + 13" in say("data", "list", "folder:data/Cams")[1]
    (found,) = json.loads(say("data", "list", "folder:data/Cams", "--json")[1])
    assert (found["name"], found["counts"]) == ("Cams", [12, 13])
    checked = " ".join(say("data", "check", "folder:data/Cams", "--images")[1].split())
    assert f"Cams ({own.population(COUNTS)})" in checked
    broken = Path("data/Cams/hall/cat/broken.png")
    broken.write_bytes(b"no image")
    status, _, err = say("data", "check", "folder:data/Cams", "--images")
    assert (status, str(broken.resolve()) in err) == (2, True)
    status, _, err = say("data", "download", "folder:data/Cams")
    assert (status, "there is nothing to download" in err) == (2, True)


def test_train_continue_and_evaluate(say):
    words = ["train", "--dataset", "folder:data/Cams", *SMALL]
    status, _, err = say(*words, "--steps", 2, "--output_dir", "run")
    assert (status, "No model is named for folder:data/Cams: it is small_cnn" in err) == (0, True)
    record = json.loads(Path("run/results.jsonl").read_text().splitlines()[-1])
    assert record["data"]["variant"] == own.population(COUNTS)
    assert record["args"]["data_dir"] == str(Path("data").resolve())
    assert say("evaluate", "run", "--device", "cpu")[0] == 0
    shutil.move("data", "elsewhere")
    status, _, err = say("evaluate", "run", "--device", "cpu")
    assert (status, "run was trained on Cams, which is not known here" in err) == (2, True)
    assert say("evaluate", "run", "--device", "cpu", "--dataset", "folder:elsewhere/Cams")[0] == 0
    assert say("evaluate", "run", "--device", "cpu", "--dataset", "elsewhere/Cams")[0] == 2


def test_a_run_does_not_continue_on_other_images(say):
    words = ["train", "--dataset", "folder:data/Cams", *SMALL, "--steps", 3, "--output_dir", "run"]
    assert say(*words, "--keep_checkpoint")[0] == 0
    Path("run/done").unlink()
    image = next(Path("data/Cams/hall/cat").iterdir())
    shutil.copy(image, image.with_name("more.jpg"))
    status, _, err = say(*words)
    assert status == 2
    assert f"run was trained on population '{own.population(COUNTS)}' of Cams. Found '26 images" in err
    image.with_name("more.jpg").unlink()
    assert say(*words)[0] == 0


def test_a_sweep_finds_the_folder_in_data_dir_or_beside_itself(say, monkeypatch):
    Path("s.yaml").write_text(SWEEP)
    Path("data/t.yaml").write_text(SWEEP)
    status, _, err = say("sweep", "list", "s.yaml")
    assert status == 2
    assert f"line 3: There is no folder {Path('Cams').resolve()}" in err
    runs = [
        json.loads(say("sweep", "list", *words, "--json")[1])
        for words in (
            ["data/t.yaml"],
            ["s.yaml", "--data_dir", "data"],
        )
    ]
    assert runs[0] == runs[1]
    assert [(run["dataset"], run["test_envs"]) for run in runs[0]] == [("Mine", [0]), ("Mine", [1])]
    monkeypatch.setenv("DOMAINBED_DATA_DIR", "data")
    assert json.loads(say("sweep", "list", "s.yaml", "--json")[1]) == runs[0]


def test_processes_of_a_sweep_know_the_folder(say):
    Path("s.yaml").write_text(SWEEP)
    status, out, err = say("sweep", "run", "s.yaml", "--data_dir", "data", "--device", "cpu", "--jobs", 1)
    assert (status, "2 of 2 runs are done (2 now)" in err) == (0, True), err
    status, out, _ = say("table", "results/s")
    assert f"Mine: population {own.population(COUNTS)}." in out
    assert "hall" in out


def test_a_sweep_file_gives_a_folder_a_name(say):
    Path("s.yaml").write_text(SWEEP.replace("{Mine: {folder: Cams}}", '["folder:data/Cams"]'))
    status, _, err = say("sweep", "list", "s.yaml")
    assert (status, "`Cams: {folder: data/Cams}`" in err) == (2, True)
