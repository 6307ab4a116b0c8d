"""Random-search ranges in a sweep file."""

import pytest
from sweep_files import SMALL, message, runs

SEARCH = "n_hparams: 40\ntrials: 1\ntest_envs: [[0]]\n"


def values(tmp_path, text, name):
    return [run.hparams[name] for run in runs(tmp_path, text)]


def test_a_range_replaces_the_declared_one_and_the_given_value_is_the_default_setting(tmp_path):
    lr = values(tmp_path, SMALL + SEARCH + "hparams: {lr: 7}\nsearch: {lr: '10^U(-2, -1)'}\n", "lr")
    assert lr[0] == 7
    assert all(0.01 <= value <= 0.1 for value in lr[1:])
    assert len(set(lr)) == 40


def test_a_given_value_without_a_range_is_never_drawn(tmp_path):
    assert set(values(tmp_path, SMALL + SEARCH + "hparams: {lr: 7}\n", "lr")) == {7}


def test_a_hyperparameter_without_a_declared_range_can_be_searched(tmp_path):
    width = values(tmp_path, SMALL + SEARCH + "search: {width: [8, 16]}\nmodel: small_cnn\n", "width")
    assert width[0] == 16
    assert set(width) == {8, 16}


def test_a_row_overrides_a_dataset_which_overrides_the_sweep(tmp_path):
    text = f"""name: s
datasets:
  EmojiStyles: {{search: {{lr: 'U(3, 4)', weight_decay: 'U(3, 4)'}}}}
algorithms:
  ERM: {{search: {{lr: 'U(5, 6)'}}}}
  SAM:
search: {{lr: 'U(1, 2)', weight_decay: 'U(1, 2)', beta1: 'U(0.1, 0.2)'}}
{SEARCH}"""
    by = {"ERM": 5, "SAM": 3}
    for run in runs(tmp_path, text):
        if run.hparams_seed:
            assert by[run.algorithm] <= run.hparams["lr"] <= by[run.algorithm] + 1
            assert 3 <= run.hparams["weight_decay"] <= 4
            assert 0.1 <= run.hparams["beta1"] <= 0.2


def test_rows_with_equal_ranges_draw_equal_values(tmp_path):
    text = SMALL.replace("[ERM]", "[ERM, SAM]") + SEARCH + "search: {lr: '10^U(-2, -1)'}\n"
    found = runs(tmp_path, text)
    lr = {name: [run.hparams["lr"] for run in found if run.algorithm == name] for name in ("ERM", "SAM")}
    assert lr["ERM"] == lr["SAM"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("search: {lr: fast}\n", "line 4: search: a random-search range should be 10^U(-4, -2)"),
        ("n_hparams: 2\nsearch: {roh: 'U(0, 1)'}\n", "line 5: 'roh' is not a hyperparameter here"),
        ("n_hparams: 2\nsearch: {beta1: 'U(3, 4)'}\n", "line 5: 'beta1' should be a finite number ≥ 0 and < 1"),
        ("search: {lr: 'U(0, 1)'}\n", "Set n_hparams to 2 or more, or remove the ranges"),
    ],
)
def test_ranges_that_cannot_be(tmp_path, text, words):
    assert words in message(tmp_path, SMALL + text)


@pytest.mark.parametrize("where", ["datasets: {EmojiStyles: {search: {lr: 'U(0, 1)'}}}\n", "datasets: [EmojiStyles]\n"])
def test_a_range_of_a_dataset_or_row_without_a_search_is_refused(tmp_path, where):
    row = "algorithms: {ERM: {search: {lr: 'U(0, 1)'}}}\n" if "search" not in where else "algorithms: [ERM]\n"
    assert "only one setting" in message(tmp_path, "name: s\n" + where + row)


def test_the_line_of_a_row_is_named(tmp_path):
    text = "name: s\nn_hparams: 2\ndatasets: [EmojiStyles]\nalgorithms:\n  ERM:\n    search:\n      roh: U(0, 1)\n"
    assert "line 7: 'roh' is not a hyperparameter here" in message(tmp_path, text)
