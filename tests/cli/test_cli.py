"""The command line: what it lists, DomainBed's flags, and mistakes that end in a message."""

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import assert_same, command, ended, records, run, small_config, wait_for

import domainbed_sage
from domainbed_sage.algorithms import algorithms
from domainbed_sage.algorithms.erm import ERM
from domainbed_sage.cli import main
from domainbed_sage.core.hparams import Power, declared
from domainbed_sage.data.specs import datasets
from domainbed_sage.models import models
from domainbed_sage.models.optimizers import optimizers

pytestmark = pytest.mark.usefixtures("forget_plugins", "restore_signals")
SMALL = ["--device", "cpu", "--steps", "6", "--checkpoint_freq", "3", "--hparams", '{"width": 8, "batch_size": 2}']


@pytest.fixture
def say(capsys, caplog):
    """Call the command; its exit status, what it prints, and its errors, in which no stack trace may be."""

    def call(*words):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:  # argparse's own mistakes
            status = stop.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err + caplog.text
        return status, out, err

    return call


# What there is


def test_version(say):
    assert say("--version") == (0, f"domainbed-sage {domainbed_sage.__version__}\n", "")


def test_reader_that_stops_early():
    """As `| head` does."""
    command = f"{sys.executable} -m domainbed_sage data list | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("what", "things"),
    [
        ("algorithms", algorithms),
        ("models", {name: spec.build for name, spec in models.items()}),
        ("optimizers", optimizers),
    ],
)
def test_list_shows_every_hyperparameter_and_default(say, what, things):
    status, out, _ = say("list", what)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    unwrapped = re.sub(r"\n {8}", " ", out)
    blocks = {block.split(":", 1)[0]: block for block in re.split(r"\n(?=\w)", unwrapped)}
    assert set(blocks) == set(things)
    for name, thing in things.items():
        assert (inspect.getdoc(thing) or "").splitlines()[0] in " ".join(blocks[name].split())
        for h in declared(thing).values():
            assert re.search(rf"^    {h.name}: .*; default {re.escape(repr(h.default))}", blocks[name], re.MULTILINE)


def test_list_of_sage(say):
    _, out, _ = say("list", "algorithms")
    out = re.sub(r"\n {8}", " ", out)
    for line in ("rho: a finite number ≥ 0; default 1e-06; random search", "noise: true or false; default True"):
        assert f"    {line}" in out[out.index("SAGE:") :]


def test_list_with_a_plugin(say):
    status, out, _ = say("list", "algorithms", "--plugin", Path(__file__).parents[1] / "troubled.py")
    assert status == 0
    assert "Fails: Raises an error at step 1 unless the file `mended` exists." in out


def test_list_of_one_thing_is_all_that_is_known(say):
    status, out, _ = say("list", "SAGE")
    assert status == 0
    assert say("list", "algorithms", "SAGE")[1] == out
    words = " ".join(out.split())
    assert words.startswith("SAGE (algorithm) The gradient at θ + ε, with ε spectral, plus noise")
    assert f"{algorithms['SAGE'].paper} passes per step: 2 " in words
    assert "noise: true or false; default True ablation of Fig. 3: False adds no noise" in words
    assert "Args:" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert "experimental: no code of its authors" in " ".join(say("list", "BOA", "adam")[1].split())


def test_list_of_a_model_shows_its_own_defaults_and_ranges(say, monkeypatch):
    spec = replace(models["small_cnn"], search={"lr": Power(10, -4, -2)})
    monkeypatch.setitem(models._things, "small_cnn", spec)
    for words in (("small_cnn",), ("models",)):
        out = say("list", *words)[1]
        assert "    its own defaults: lr 0.001, batch_size 8\n" in out
        assert "    its own random search: lr 10^U(-4, -2)\n" in out
    (found,) = json.loads(say("list", "small_cnn", "--json")[1])
    assert found["recommended"] == spec.recommended
    assert found["search"]["lr"] == {"kind": "Power", "base": 10, "low": -4, "high": -2, "integer": False}


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (("algoritms",), "algorithms"),
        (("SAGEE",), "SAGE"),
        (("models", "small_cn"), "small_cnn"),
        (("SAGE", "adm"), "adam"),
    ],
)
def test_list_of_a_name_that_is_not_known(say, words, guess):
    status, out, err = say("list", *words)
    assert (status, out) == (2, "")
    assert f"Did you mean {guess!r}?" in err


def test_list_of_a_thing_of_another_kind(say):
    assert "There is no 'adam' to list." in say("list", "algorithms", "adam")[2]


def test_an_algorithm_without_a_docstring_does_not_show_its_base(say, monkeypatch):
    class Silent(ERM):
        pass

    monkeypatch.setitem(algorithms._things, "Silent", Silent)
    assert say("list", "Silent")[1].splitlines()[1] == "    (no description)"
    assert "Silent: (no description)\n" in say("list", "algorithms")[1]
    (found,) = json.loads(say("list", "Silent", "--json")[1])
    assert found["description"] == ""


def test_data_list(say):
    status, out, _ = say("data", "list")
    assert status == 0
    for name, spec in datasets.items():
        line = f"{name}: {spec.num_classes} classes; environments {', '.join(spec.environments)}"
        assert line in out.splitlines()


# Mistakes of the user


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "prepare", "Foo"], r"Unknown dataset 'Foo'\. Known: .*PACS"),
        (["train", "--dataset", "PACS", "--model", "small_cnn"], r"PACS is read from disk: .*--data_dir"),
        (["train", "--algorithm", "SAGGE"], r"Unknown algorithm 'SAGGE'\. Did you mean 'SAGE'\?"),
        (["train", "--test_envs", "0", "1", "2", "3"], r"leave no environment of EmojiStyles to train on"),
        (["train", "--test_envs", "mars"], r"EmojiStyles has no environment 'mars'\. Known: 0 = fluent_hc"),
        (["train", "--hparams", "{lr: 1}"], r"--hparams should be a JSON object such as '\{\"lr\": 1e-5\}'\. Found"),
        (["train", "--hparams", "[1]"], r"--hparams should be a JSON object"),
        (
            ["train", "--hparams", '{"learning_rate": 1}'],
            r"'learning_rate' is not a hyperparameter here\. Known: batch",
        ),
        (["train", "--steps", "0"], r"steps should be a whole number ≥ 1 and ≤ 1,000,000,000\. Found 0"),
        (
            ["train", "--precision", "fp64"],
            r"precision should be one of fp32, tf32, bf16, bf16x3, bf16x6\. Found 'fp64'",
        ),
        (["train", "--precision", "fp16"], r"Found 'fp16'\. Small gradients become zero .*use bf16 or fp32"),
        (["train", "--device", "cuda:99"], r"--device 'cuda:99' cannot be used"),
        (["train", "--device", "toaster"], r"--device 'toaster' cannot be used"),
        (["train", "--plugin", "nowhere.py"], r"Plugin .*nowhere\.py should be a Python file"),
        (["sweep", "run", "nowhere.yaml"], r"Sweep file nowhere\.yaml does not exist"),
        (["table", "nowhere"], r"There is no results folder nowhere"),
        (["verify", "nowhere.npz"], r"nowhere\.npz"),
    ],
)
def test_mistakes_exit_with_2(say, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOMAINBED_DATA_DIR", raising=False)
    status, _, err = say(*words)
    assert status == 2
    assert re.search(rf"^error: [\s\S]*{message}", err)


def test_arguments_that_do_not_exist(say):
    for words in (["train", "--learning_rate", "1"], ["dance"], []):
        status, _, err = say(*words)
        assert status == 2
        assert "usage: domainbed-sage" in err


def test_output_dir_is_a_file(say, tmp_path):
    (tmp_path / "file").write_text("mine")
    status, _, err = say("train", *SMALL, "--output_dir", tmp_path / "file")
    assert status == 2
    assert f"Cannot write {tmp_path / 'file'}" in err


def test_divergence_is_a_message(say, tmp_path):
    hparams = ["--hparams", '{"width": 8, "batch_size": 2, "lr": 1e20}']
    status, _, err = say("train", *SMALL, *hparams, "--output_dir", tmp_path)
    assert status == 2
    assert "error: loss of ERM is not finite at step 1" in err
    assert "Traceback" in (tmp_path / "err.txt").read_text()


# Training


def test_domainbeds_flags(say, tmp_path):
    hparams = '{"width": 8, "batch_size": 2, "rho": 0.001, "gamma": 0.1}'
    status, out, _ = say(
        *("train", "--dataset", "EmojiStyles", "--algorithm", "SAGE", "--hparams", hparams, "--hparams_seed", 0),
        *("--trial_seed", 1, "--seed", 7, "--steps", 4, "--checkpoint_freq", 2, "--test_envs", 1, 3),
        *("--output_dir", tmp_path / "run", "--holdout_fraction", 0.3, "--skip_model_save", "--device", "cpu"),
    )
    assert status == 0
    assert f"Done: {tmp_path / 'run' / 'results.jsonl'}" in out
    args = records(tmp_path / "run")[-1]["args"]
    expected = {
        "dataset": "EmojiStyles",
        "algorithm": "SAGE",
        "hparams_seed": 0,
        "trial_seed": 1,
        "seed": 7,
        "steps": 4,
    }
    expected |= {"checkpoint_freq": 2, "test_envs": [1, 3], "holdout_fraction": 0.3, "skip_model_save": True}
    assert {name: args[name] for name in expected} == expected
    assert json.loads(args["hparams"])["gamma"] == 0.1
    assert not (tmp_path / "run" / "model.pkl").exists()


def test_same_command_twice(say, tmp_path):
    assert say("train", *SMALL, "--output_dir", tmp_path)[0] == 0
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "lock"}
    assert say("train", *SMALL, "--output_dir", tmp_path)[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "lock"} == before
    status, _, err = say("train", *SMALL, "--seed", 1, "--output_dir", tmp_path)
    assert status == 2
    assert "holds another run; it differs in: seed 0 → 1." in err


def test_interrupted_and_terminated(say, tmp_path):
    """Ctrl-C reaches the loader processes too; SIGTERM comes from a scheduler; then the same command finishes."""
    plugin = shutil.copy(Path(__file__).parents[1] / "troubled.py", tmp_path)
    hparams = {"width": 8, "batch_size": 2, "rho": 1e-3, "gamma": 0.1}
    words = ["train", "--algorithm", "Slow", "--plugin", str(plugin), "--output_dir", str(tmp_path / "run"), *SMALL]
    words += ["--steps", "80", "--checkpoint_freq", "40", "--hparams", json.dumps(hparams), "--num_workers", "2"]
    note = tmp_path / "run" / "progress.json"

    environment, module = os.environ | {"OMP_NUM_THREADS": "1"}, [sys.executable, "-m", "domainbed_sage"]
    with subprocess.Popen([*module, *words], stderr=subprocess.PIPE, text=True, env=environment, process_group=0) as p:
        wait_for(lambda: note.exists() or p.poll() is not None)
        os.killpg(p.pid, signal.SIGINT)
        _, err = p.communicate(timeout=60)
    first = assert_stopped(tmp_path / "run", p.returncode, err)

    note.unlink()
    process = command(words, tmp_path / "errors.txt")
    wait_for(note.exists, process)
    os.kill(process.pid, signal.SIGTERM)
    assert assert_stopped(tmp_path / "run", ended(process), (tmp_path / "errors.txt").read_text()) > first

    (tmp_path / "hurry").touch()
    assert say(*words)[0] == 0
    config = small_config("Slow", steps=80, checkpoint_freq=40, hparams=hparams)
    assert_same(tmp_path / "run", run(config, tmp_path / "alone"))


def assert_stopped(folder, status, err):
    """A run has stopped as it was asked to; the step at which it will continue."""
    step = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    assert status == 130
    assert 0 < step < 80
    assert err.endswith(f"Stopped after step {step - 1}; start the same command again to continue.\n")
    assert "Traceback" not in err
    assert (folder / "err.txt").read_text() == ""
    return step
