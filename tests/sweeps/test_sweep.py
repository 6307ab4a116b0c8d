"""Sweep files: the runs they stand for, and all their mistakes in one message."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.seeding import seed_hash
from domainbed_sage.data.specs import datasets
from domainbed_sage.sweeps.sweep import Sweep, _Loader, read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
SMALL = "name: s\ndatasets: [EmojiStyles]\nalgorithms: [ERM]\n"


def read(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_sweep(path)


def runs(tmp_path, text):
    return read(tmp_path, text).runs()


def message(tmp_path, text):
    """What is wrong with a sweep file, whether it is found in the file or in its runs."""
    with pytest.raises(UserError) as caught:
        runs(tmp_path, text)
    return str(caught.value)


# The runs


def test_demo():
    found = read_sweep(SWEEPS / "demo.yaml").runs()
    assert len(found) == len({run.run_id for run in found}) == 24
    assert Counter(run.test_envs for run in found) == {(i,): 6 for i in range(4)}
    assert {run.algorithm for run in found} == {"ERM", "SAM", "SAGM", "DISAM", "GGA", "SAGE"}
    assert {(run.dataset, run.model, run.trial_seed) for run in found} == {("EmojiStyles", "small_cnn", 0)}


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_sweep_has_as_many_runs_as_it_says(path):
    said = re.search(r"^# Size: +([\d,]+) runs", path.read_text(), re.MULTILINE)
    assert len(read_sweep(path).runs()) == int(said[1].replace(",", ""))


def test_repeated_entry(tmp_path):
    found = message(tmp_path, SMALL + "trials: 1\ntest_envs: [[1], [1]]\n")
    assert re.search(r"EmojiStyles-ERM-env1-trial0-\w+ is planned 2 times; look for a repeated entry", found)


@pytest.mark.parametrize("number", ["1e-6", "1E-6", "1.0e-6", "0.000001", "+1e-6", ".1e-5", "1.e-6"])
def test_scientific_notation_is_a_number(tmp_path, number):
    (run, *_) = runs(tmp_path, f"{SMALL}hparams: {{lr: {number}}}\n")
    assert run.hparams["lr"] == 1e-6
    assert isinstance(run.hparams["lr"], float)


def test_yaml_is_otherwise_untouched():
    text = "{a: 1, b: 1.5, c: yes, d: 1e, e: 1e5, f: '1e5', g: x1e-6, h: 2026-01-01, i: null, j: -7e-3}"
    assert yaml.load(text, _Loader) == yaml.safe_load(text) | {"e": 1e5, "j": -7e-3}
    assert yaml.safe_load("1e-6") == "1e-6"  # the standard loader is as before


def test_lists_and_mappings_say_the_same(tmp_path):
    other = "name: s\ndatasets: {EmojiStyles: }\nalgorithms: {ERM: {}}\n"
    assert runs(tmp_path, SMALL) == runs(tmp_path, other)
    assert len(runs(tmp_path, SMALL)) == 4 * 3


def test_order_and_seeds(tmp_path):
    found = runs(tmp_path, "name: s\ndatasets: [EmojiStyles]\nalgorithms: [ERM, SAM]\ntrials: 2\nn_hparams: 2\n")
    keys = [(r.trial_seed, r.algorithm, r.test_envs, r.hparams_seed) for r in found]
    assert keys == [(t, a, (e,), h) for t in range(2) for a in ("ERM", "SAM") for e in range(4) for h in range(2)]
    expected = [seed_hash("EmojiStyles", a, list(e), h, t) for t, a, e, h in keys]  # DomainBed's seed
    assert [run.seed for run in found] == expected


def test_pairs(tmp_path):
    found = runs(tmp_path, SMALL + "test_envs: pairs\ntrials: 1\n")
    single = {(i,) for i in range(4)}
    pairs = {(i, j) for i in range(4) for j in range(i + 1, 4)}
    assert Counter(run.test_envs for run in found) == Counter(single | pairs)


def test_explicit_environments(tmp_path):
    found = runs(tmp_path, SMALL + "test_envs: [[0], [1, 3]]\ntrials: 1\n")
    assert [run.test_envs for run in found] == [(0,), (1, 3)]
    # A name is only another way to write the index, also where it seeds the run.
    assert found[1:] == runs(tmp_path, SMALL + "test_envs: [[noto, twemoji]]\ntrials: 1\n")


def test_environments_whose_names_are_numbers(tmp_path, monkeypatch):
    """Each is held out in turn, under its index; in a list, a number that may mean two of them is refused."""
    spec = replace(datasets["EmojiStyles"], name="Numbers", environments=("1", "2", "3", "7"))
    monkeypatch.setitem(datasets._things, "Numbers", spec)
    text = "name: s\ndatasets: [Numbers]\nalgorithms: [ERM]\ntrials: 1\n"
    found = runs(tmp_path, text)
    assert [run.test_envs for run in found] == [(0,), (1,), (2,), (3,)]
    assert [run.seed for run in found] == [seed_hash("Numbers", "ERM", [i], 0, 0) for i in range(4)]
    for given in ("name:7", "index:3", "7", "'7'", "3", "'3'"):
        if given.strip("'") == "3":
            assert "may mean more than one environment of Numbers" in message(tmp_path, f"{text}test_envs: [[{given}]]")
        else:
            assert runs(tmp_path, f"{text}test_envs: [[{given}]]") == found[3:], given
    assert len(runs(tmp_path, f"{text}test_envs: pairs")) == 10


def test_random_hyperparameters(tmp_path):
    found = runs(tmp_path, SMALL + "n_hparams: 3\ntrials: 2\ntest_envs: [[0]]\nhparams: {batch_size: 8}\n")
    lr = {(run.trial_seed, run.hparams_seed): run.hparams["lr"] for run in found}
    assert lr[0, 0] == lr[1, 0] == 1e-3
    assert len(set(lr.values())) == 5  # one default, and 2 x 2 draws
    assert {run.hparams["batch_size"] for run in found} == {8}


def test_hyperparameters_of_algorithm_win_over_dataset_over_all(tmp_path):
    text = """
        name: s
        datasets: {EmojiStyles: {hparams: {lr: 0.2, width: 8}}, EmojiStylesDisjoint: }
        algorithms: {ERM: {lr: 0.3}, SAM: {}}
        hparams: {lr: 0.1, batch_size: 2}
        test_envs: [[0]]
        trials: 1
    """
    found = {(r.dataset, r.algorithm): r.hparams for r in runs(tmp_path, text)}
    assert found["EmojiStyles", "ERM"]["lr"] == 0.3
    assert found["EmojiStyles", "SAM"]["lr"] == 0.2
    assert found["EmojiStylesDisjoint", "SAM"]["lr"] == 0.1
    assert [h["width"] for h in found.values()] == [8, 8, 16, 16]
    assert {h["batch_size"] for h in found.values()} == {2}


def test_schedule_of_a_dataset_wins(tmp_path):
    text = """
        name: s
        datasets: {EmojiStyles: {steps: 7, checkpoint_freq: 2}, EmojiStylesDisjoint: , PACS: {model: small_cnn}}
        algorithms: [ERM]
        steps: 9
        model: small_cnn
        test_envs: [[0]]
        trials: 1
    """
    assert [(r.steps, r.checkpoint_freq) for r in runs(tmp_path, text)] == [(7, 2), (9, 60), (9, 300)]


def test_settings_for_all_runs(tmp_path):
    text = f"{SMALL}optimizer: sgd\nprecision: bf16\nholdout_fraction: 0.5\ntest_envs: [[0]]\ntrials: 1\n"
    (run,) = runs(tmp_path, text)
    assert (run.optimizer, run.precision, run.holdout_fraction) == ("sgd", "bf16", 0.5)
    arguments = {"optimizer": "sgd", "precision": "bf16", "holdout_fraction": 0.5, "seed": run.seed}
    assert run == make_config(dataset="EmojiStyles", algorithm="ERM", test_envs=[0], **arguments)


# Mistakes


def test_all_mistakes_of_the_file(tmp_path):
    text = """
        name: a/b
        datasets: {EmojiStyles: {stepss: 3}}
        algorithms: 5
        trials: 0
        n_hparams: two
        test_envs: some
        precision: fp31
        holdout_fraction: high
        colour: red
        12: x
    """
    found = message(tmp_path, text)
    assert "s.yaml (settings: " in found
    for setting in (
        *("name", "datasets.EmojiStyles", "stepss", "algorithms", "trials", "n_hparams", "test_envs", "precision"),
        *("holdout_fraction", "colour", "12"),
    ):
        assert f"  - {setting}" in found or f".{setting}" in found, setting
    for value in ("'a/b'", "'two'", "'some'", "'fp31'", "'high'", "'red'"):
        assert f"Found {value}." in found, value


def test_all_mistakes_of_the_runs(tmp_path):
    text = """
        name: s
        datasets: [EmojiStyles, EmojiStyle]
        algorithms: {ERM: {rho: 1}, SGE: {}, SAM: {rho: -1}}
        hparams: {lr: fast}
        test_envs: [[9], [noto]]
    """
    lines = message(tmp_path, text).splitlines()
    assert lines[0] == f"{len(lines) - 1} mistakes in sweep s:"
    for words in (
        "Unknown dataset 'EmojiStyle'. Did you mean 'EmojiStyles'?",
        "Unknown algorithm 'SGE'. Did you mean 'SAGE'?",
        "'rho' is not a hyperparameter here.",
        "'rho' should be a finite number ≥ 0. Found -1.",
        "'lr' should be a finite number > 0. Found 'fast'.",
        "EmojiStyles has no environment 9.",
    ):
        assert sum(words in line for line in lines) == 1, words


@pytest.mark.parametrize("missing", ["name", "datasets", "algorithms"])
def test_missing_setting(tmp_path, missing):
    lines = [line for line in SMALL.splitlines() if not line.startswith(missing)]
    assert f"- {missing}: Field required" in message(tmp_path, "\n".join(lines))


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(UserError, match=r"Sweep file .*none\.yaml does not exist"):
        read_sweep(tmp_path / "none.yaml")
    assert "is not YAML" in message(tmp_path, "name: [")
    assert "should hold settings such as `name:`" in message(tmp_path, "just a text")
    assert "should hold settings such as `name:`" in message(tmp_path, "")


# Plugins


@pytest.mark.usefixtures("forget_plugins")
def test_plugin_beside_the_sweep_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from domainbed_sage.algorithms import algorithms, register\n\n\n"
        "@register('Beside')\nclass Beside(algorithms['ERM']):\n"
        "    def __init__(self, problem, *, strength: float = 2.0):\n        super().__init__(problem)\n"
    )
    text = "name: s\ndatasets: [EmojiStyles]\nalgorithms: {Beside: {strength: 3.0}}\nplugins: [mine.py]\n"
    assert runs(tmp_path, text)[0].hparams["strength"] == 3.0
    assert runs(tmp_path, text)[0].algorithm == "Beside"  # reading it again does not load the plugin again


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), ("1 / 0", "ZeroDivisionError: division by zero"), ("import nowhere", "named 'nowhere'")],
)
def test_plugin_that_fails(tmp_path, content, words):
    if content:
        (tmp_path / "broken.py").write_text(content)
    found = message(tmp_path, SMALL + "plugins: [broken.py]\n")
    assert str(tmp_path / "broken.py") in found
    assert words in found


def test_sweep_from_python():
    sweep = Sweep(name="s", datasets={"EmojiStyles": None}, algorithms={"ERM": None}, trials=1)
    assert len(sweep.runs()) == 4
