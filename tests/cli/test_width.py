"""What the commands print is as wide as the terminal: 80 columns where there is none."""

import re

import pytest

from domainbed_sage.cli import main
from domainbed_sage.cli.plan import shortened
from domainbed_sage.cli.terminal import aligned, folded
from domainbed_sage.sweeps import estimate

LISTS = ("list algorithms", "list models", "list optimizers", "list data", "data list")
ACTIONS = ("plan", "plan --pass_time 0.5", "list", "status")
COST = {  # of a run
    "runs": 1,
    "passes": 10_001,
    "images_trained": 1_800_360,
    "images_passed": 3_600_720,
    "images_evaluated": 316_750_500,
    "images_full_grid": 316_750_500,
    "flops": 2.2222e18,
    "images_worth": 3_700_000,
    "peak_bytes": 13.4e9,
}


@pytest.fixture
def say(capsys, monkeypatch, tmp_path):
    """Run a command where output is piped and return what it prints."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words):
        assert main([*words, *(["--output_dir", str(tmp_path)] if words[0] == "sweep" else [])]) == 0
        return capsys.readouterr().out

    return run


def widest(text):
    return max(text.splitlines(), key=len)


@pytest.mark.parametrize("command", LISTS)
def test_lists_fit_80_columns(say, command):
    assert len(widest(say(*command.split()))) <= 80


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("preset", ["demo", "table1"])
def test_sweeps_fit_80_columns(say, monkeypatch, action, preset):
    monkeypatch.setattr(estimate, "cost", lambda run: COST)
    name, *options = action.split()
    assert len(widest(say("sweep", name, preset, *options))) <= 80


def test_counts_of_a_plan_are_exact_where_they_fit_and_have_a_unit_elsewhere(say, monkeypatch):
    monkeypatch.setattr(estimate, "cost", lambda run: COST)
    monkeypatch.setenv("COLUMNS", "104")
    out = say("sweep", "plan", "demo")
    assert row_of(out, "SAGE") == [
        "SAGE",
        "4",
        "40,004",
        "7,201,440",
        "14,402,880",
        "1,267,002,000",
        "8.89e+03",
        "13.40",
    ]
    assert "thousands" not in out
    monkeypatch.setenv("COLUMNS", "70")
    out = say("sweep", "plan", "demo")
    assert row_of(out, "SAGE") == ["SAGE", "4", "40 k", "7.201 M", "14.4 M", "1.267 G", "8.89e+03", "13.40"]
    assert out.endswith("k, M, G: thousands, millions and billions, to four digits.\n")


def row_of(out, algorithm):
    (line,) = (line for line in out.splitlines() if line.split()[:1] == [algorithm])
    return re.split(r" {2,}", line.strip())


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (999_949, "999.9 k"),
        (999_951, "1 M"),
        (67_296, "67.3 k"),
        (3e12, "3000 G"),
    ],
)
def test_a_shortened_count(number, text):
    assert shortened(number) == text


def test_no_word_is_broken_by_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    assert folded("--output_dir: a-folder/of-yours, or none", " ", hang=2) == (
        " --output_dir:\n   a-folder/of-yours,\n   or none"
    )


def test_aligned_columns():
    assert aligned([["", "n"], ["a long heading"], [" x", "10", "y"]]) == "     n\na long heading\n x  10  y"


@pytest.mark.parametrize("columns", [60, 120])
def test_lists_use_the_width_of_the_terminal(say, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert columns - 12 < len(widest(say("list", "algorithms"))) <= columns
