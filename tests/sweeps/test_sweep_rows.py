"""Sweep files: rows that are variants of one algorithm, limits of the number of runs, and the name alone."""

import re
from pathlib import Path

import pytest
from sweep_files import SMALL, message, read, runs

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.seeding import seed_hash
from domainbed_sage.sweeps.name import read_name
from domainbed_sage.sweeps.sweep import MOST_RUNS, Sweep, read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"


# Rows: variants of one algorithm

ROWS = "name: s\ndatasets: [EmojiStyles]\nmodel: small_cnn\ntrials: 1\ntest_envs: [[0]]\n"


def test_a_row_may_name_its_algorithm(tmp_path):
    rows = "{SAGE: {rho: 1e-3}, no noise: {algorithm: SAGE, rho: 1e-3, noise: false}, ERM: }"
    planned = read(tmp_path, f"{ROWS}algorithms: {rows}\n").planned()
    assert [label for label, _ in planned] == ["SAGE", "no noise", "ERM"]
    assert runs(tmp_path, f"{ROWS}algorithms: {rows}\n") == [config for _, config in planned]
    plain, variant, _ = [config for _, config in planned]
    assert (plain.algorithm, variant.algorithm) == ("SAGE", "SAGE")
    assert plain.seed == variant.seed == seed_hash("EmojiStyles", "SAGE", [0], 0, 0)
    assert plain.hparams | {"noise": False} == variant.hparams != plain.hparams


def test_the_label_is_no_part_of_the_science(tmp_path):
    def run(rows):
        return runs(tmp_path, f"{ROWS}algorithms: {rows}\n")

    plain = run("{SAGE: {rho: 1e-3}}")
    assert plain == run("{other: {algorithm: SAGE, rho: 1e-3}}") == run("{SAGE: {algorithm: SAGE, rho: 1e-3}}")
    assert "other" not in run("{other: {algorithm: SAGE}}")[0].model_dump_json()


def test_a_row_may_set_its_model_optimizer_and_precision(tmp_path):
    text = """
        name: s
        datasets: {EmojiStyles: {model: tf_efficientnet_lite0}, EmojiStylesDisjoint: }
        model: tf_efficientnet_lite0
        algorithms: {ERM: , small: {algorithm: ERM, model: small_cnn, optimizer: sgd, precision: bf16, width: 8}}
        test_envs: [[0]]
        trials: 1
    """
    found = [(r.model, r.optimizer, r.precision, r.hparams.get("width")) for r in runs(tmp_path, text)]
    assert found == 2 * [("tf_efficientnet_lite0", "adam", "fp32", None), ("small_cnn", "sgd", "bf16", 8)]


def test_two_rows_that_mean_the_same_runs(tmp_path):
    rows = "algorithms:\n  SAGE: {rho: 1e-3}\n  other:\n    algorithm: SAGE\n    rho: 0.001\n"
    (line,) = message(tmp_path, ROWS.replace("[[0]]", "single") + rows).splitlines()[1:]
    assert line.startswith("  - line 8: SAGE and other mean the same 4 runs: EmojiStyles-SAGE-env0-trial0-")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            "mine: {rho: 1}",
            r"line 6: Unknown algorithm 'mine'.*says which algorithm it is: `mine: \{algorithm: NAME\}`",
        ),
        ("mine: {algorithm: SGE}", "line 6: Unknown algorithm 'SGE'. Did you mean 'SAGE'"),
        ("ERM: {algorithm: SAGE}", "line 6: ERM is the name of another algorithm than SAGE."),
        (
            "mine: {algorithm: 7}",
            r"line 6: algorithms.mine.algorithm should be a text or null. Found 7. .* quotes: \"7\"",
        ),
        ("mine: [SAGE]", r"line 6: algorithms.mine should be settings, or nothing. Found \['SAGE'\]"),
        ("mine: {algorithm: SAGE, precision: 32}", "line 6: algorithms.mine.precision should be one of fp32, tf32"),
        ("'a/b': {algorithm: SAGE}", "line 6: algorithms.a/b: a label should be up to 64 printable characters"),
        ("'a\\b': {algorithm: SAGE}", "line 6: .*a label should be"),
        ("'': {algorithm: SAGE}", "line 6: algorithms.'': a label should be"),
        ("' a': {algorithm: SAGE}", "line 6: algorithms. a: a label should be"),
        ('"a\\e[2J": {algorithm: SAGE}', r"line 6: algorithms.'a\\x1b\[2J': a label should be"),
        (f"{'a' * 65}: {{algorithm: SAGE}}", "line 6: algorithms.aaa.*a label should be"),
    ],
)
def test_row_that_is_refused(tmp_path, row, words):
    assert re.search(words, message(tmp_path, f"{ROWS}algorithms: {{{row}}}\n"))


def test_label_of_64_characters(tmp_path):
    assert len(runs(tmp_path, f"{ROWS}algorithms: {{{'a' * 64}: {{algorithm: SAGE}}}}\n")) == 1


@pytest.mark.usefixtures("forget_plugins")
def test_hyperparameter_with_the_name_of_a_setting_of_the_row(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from domainbed_sage.algorithms import algorithms, register\n\n\n"
        "@register('Modelled')\nclass Modelled(algorithms['ERM']):\n"
        "    def __init__(self, problem, *, model: str = 'x'):\n        super().__init__(problem)\n"
    )
    text = f"{ROWS}plugins: [mine.py]\nalgorithms: {{Modelled: {{model: small_cnn}}}}\n"
    assert "line 7: 'model' of Modelled could be the row's model or a hyperparameter" in message(tmp_path, text)
    (run,) = runs(tmp_path, f"{ROWS}plugins: [mine.py]\nalgorithms: [Modelled]\nhparams: {{model: y}}\n")
    assert (run.model, run.hparams["model"]) == ("small_cnn", "y")


@pytest.mark.parametrize("many", ["n_hparams: 1000000\n", f"trials: {10**30}\n", "n_hparams: 33334\ntrials: 6\n"])
def test_too_many_runs_are_refused_before_they_are_made(tmp_path, many, monkeypatch):
    monkeypatch.setattr(Sweep, "_grid", None)
    found = message(tmp_path, f"name: s\ndatasets: [EmojiStyles]\nalgorithms: [ERM]\ntest_envs: [[0]]\n{many}")
    sweep = read(tmp_path, f"{SMALL}{many}")
    assert f"would have {sweep.trials * sweep.n_hparams:,} runs; at most {MOST_RUNS:,} are planned" in found
    assert f"1 algorithm x {sweep.trials:,} trials x {sweep.n_hparams:,} settings" in found


def test_as_many_runs_as_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("domainbed_sage.sweeps.sweep.MOST_RUNS", 12)
    assert len(runs(tmp_path, SMALL)) == 12
    assert "would have 16 runs; at most 12 are planned" in message(tmp_path, f"{SMALL}trials: 4\n")


def test_settings_that_nothing_selects_are_refused(tmp_path):
    several = "name: s\ndatasets: [EmojiStyles, Rooms]\nalgorithms: [ERM]\n"
    assert "2 settings of hyperparameters (n_hparams), but no setting is selected on Rooms" in message(
        tmp_path, f"{several}n_hparams: 2\n"
    )
    assert {run.dataset for run in runs(tmp_path, f"{several}n_hparams: 1\n")} == {"EmojiStyles", "Rooms"}


# The name alone


def test_name(tmp_path):
    path = tmp_path / "s.yaml"
    for path in SWEEPS.glob("*.yaml"):
        assert read_name(path) == read_sweep(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("algorithms: [A]", "Found none."),
        ("x: 1\nname: 0123", "Found line 2: '0123'."),
        ("name: a/b", "Found line 1: 'a/b'."),
        ("name: {a: b}", "Found line 1: {'a': 'b'}."),
        ('name: "a\\n"', r"Found line 1: 'a\n'."),
        ("name: " + "a" * 65, "Found line 1: 'aaa"),
        ("name: a\nname: b", "line 2: 'name' is repeated here"),
        ("", "is empty"),
    ],
)
def test_name_that_names_nothing(tmp_path, text, words):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_name(path)
    assert words in str(caught.value)
    assert "name" in message(tmp_path, text)  # the whole reader refuses it too
