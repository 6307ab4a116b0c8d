"""Sweep files: the runs they stand for, and all their mistakes in one message."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_files import SMALL, message, runs

from domainbed_sage.config import make_config
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.seeding import seed_hash
from domainbed_sage.data.specs import datasets
from domainbed_sage.sweeps import sweep
from domainbed_sage.sweeps.sweep import Sweep, read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"


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
        datasets:
          EmojiStyles: {stepss: 3, hparams: []}
          PACS: 4
        algorithms: 5
        trials: 0
        n_hparams: two
        test_envs: [0, 1]
        precision: fp31
        holdout_fraction: 1
        colour: red
        model: 0123
        plugins: a.py
        evaluation: on
        12: x
    """
    found = message(tmp_path, text)
    assert found.splitlines()[0] == f"15 mistakes in {tmp_path / 's.yaml'}:"
    for line in (
        "2: name should be up to 64 letters, digits, '.', '_' and '-' that begin with a letter or a digit. Found 'a/",
        "4: datasets.EmojiStyles.stepss is not a setting. Did you mean 'steps'? Known: model, steps, checkpoint_freq, ",
        "4: datasets.EmojiStyles.hparams should be a mapping from hyperparameters to values. Found [].",
        "5: datasets.PACS should be settings, or nothing. Found 4.",
        "6: algorithms should be a list of algorithms, or a mapping to their hyperparameters. Found 5.",
        "7: trials should be a whole number ≥ 1. Found 0.",
        "8: n_hparams should be a whole number ≥ 1. Found 'two'.",
        "9: test_envs should be single, pairs, or lists of held-out environments such as [[0], [1, 2]]. Found [0, 1].",
        "10: precision should be one of fp32, tf32, bf16, bf16x3, bf16x6. Found 'fp31'.",
        "11: holdout_fraction should be a number between 0 and 1. Found 1.",
        "12: colour is not a setting. Known: model, ",
        '13: model should be a text or null. Found 0123. Write it in quotes: "0123".',
        "14: plugins should be a list of Python files. Found 'a.py'.",
        "15: evaluation should be one of 'lazy', 'full' or null. Found 'on'.",
        "16: 12 is not a setting.",
    ):
        assert f"  - line {line}" in found, line


def test_all_mistakes_of_the_runs(tmp_path):
    text = """
        name: s
        datasets:
          EmojiStyles:
            hparams: {width: 1.5}
          EmojiStyle:
        algorithms:
          ERM: {roh: 1}
          SGE: {}
          SAM: {rho: -1}
          fast: {algorithm: SAM, precision: fp64}
        hparams: {lr: fast, batch_size: on}
        test_envs: [[9], [noto]]
        optimizer: adan
    """
    lines = message(tmp_path, text).splitlines()
    assert lines[0] == f"{len(lines) - 1} mistakes in sweep s ({tmp_path / 's.yaml'}):"
    for words in (
        "line 6: Unknown dataset 'EmojiStyle'. Did you mean 'EmojiStyles'?",
        "line 9: Unknown algorithm 'SGE'. Did you mean 'SAGE'?",
        "line 14: Unknown optimizer 'adan'. Did you mean 'adam'?",
    ):
        assert sum(words in line for line in lines) == 1, words
    lines = message(tmp_path, text.replace("optimizer: adan", "")).splitlines()
    for words in (
        "line 5: 'width' should be a whole number ≥ 8 and ",
        "line 8: 'roh' is not a hyperparameter here. Known: batch_size,",
        "line 10: 'rho' should be a finite number ≥ 0. Found -1.",
        "line 11: precision should be one of fp32, tf32, bf16, bf16x3, bf16x6. Found 'fp64'.",
        "line 12: 'lr' should be a finite number > 0. Found 'fast'.",
        "line 12: 'batch_size' should be a whole number ≥ 1. Found 'on'.",
        "line 13: EmojiStyles has no environment 9.",
    ):
        assert sum(words in line for line in lines) == 1, words


@pytest.mark.parametrize("missing", ["name", "datasets", "algorithms"])
def test_missing_setting(tmp_path, missing):
    lines = [line for line in SMALL.splitlines() if not line.startswith(missing)]
    assert f"- {missing} is missing. It should be " in message(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("setting", ["datasets", "algorithms", "test_envs"])
@pytest.mark.parametrize("nothing", ["[]", "{}", ""])
def test_nothing_to_run(tmp_path, setting, nothing):
    lines = [line for line in SMALL.splitlines() if not line.startswith(setting)]
    found = message(tmp_path, "\n".join([*lines, f"{setting}: {nothing}"]))
    assert f"line {len(lines) + 1}: {setting} should be " in found


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(UserError, match=r"Sweep file .*none\.yaml does not exist"):
        read_sweep(tmp_path / "none.yaml")
    assert "line 1, column 8: this is not YAML" in message(tmp_path, "name: [")
    assert "should hold settings such as `name:`" in message(tmp_path, "just a text")
    assert "s.yaml is empty. It should hold settings such as `name:`" in message(tmp_path, "# nothing\n")


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
    [
        (None, "does not exist"),
        ("1 / 0", "ZeroDivisionError: division by zero (line 1)"),
        ("import nowhere", "named 'nowhere'"),
        ("raise SystemExit(0)", "SystemExit: 0 (line 1)"),
    ],
)
def test_plugin_that_fails(tmp_path, content, words):
    if content:
        (tmp_path / "broken.py").write_text(content)
    found = message(tmp_path, SMALL + "plugins: [broken.py]\n")
    assert str(tmp_path / "broken.py") in found
    assert words in found


@pytest.mark.parametrize("name", ['""', '"a\\0.py"', "7"])
def test_plugin_that_can_be_no_file(tmp_path, name):
    found = message(tmp_path, f"{SMALL}plugins: [{name}]\n")
    assert "line 4: plugins should be a list of Python files. Found [" in found


def test_sweep_from_python():
    sweep = Sweep(name="s", datasets={"EmojiStyles": None}, algorithms={"ERM": None}, trials=1)
    assert len(sweep.runs()) == 4


def test_an_unknown_dataset_counts_as_one_set_of_environments(monkeypatch):
    """What is wrong is its name, and not that there would be too many runs."""
    monkeypatch.setattr(sweep, "MOST_RUNS", 3)
    with pytest.raises(UserError, match="Unknown dataset 'Mars'"):
        Sweep(name="s", datasets={"Mars": None}, algorithms={"ERM": None}, trials=3).planned()
    with pytest.raises(UserError, match=r"would have 4 runs; at most 3 are planned\. They come from 1 held-out set of"):
        Sweep(name="s", datasets={"Mars": None}, algorithms={"ERM": None}, trials=4).planned()
