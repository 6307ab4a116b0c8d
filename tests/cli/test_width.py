"""What the commands print is as wide as the terminal: 80 columns where there is none."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from generated_trees import few, plant
from reference import sweep_folder

from domainbed_sage.cli import main
from domainbed_sage.cli.plan import shortened
from domainbed_sage.cli.terminal import aligned, folded
from domainbed_sage.data.specs import datasets
from domainbed_sage.results import render, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.sweeps import estimate

LISTS = (
    *("list algorithms", "list models", "list optimizers", "list data", "list SAGE", "list timm", "data list"),
    *("weights list", "cite --algorithm SAGE --dataset TerraIncognita"),
)
OF_RESULTS = (
    "table RESULTS --out tables",
    "table RESULTS --selection all --interval --paper --out tables",
    "table RESULTS RESULTS/../more",
    "compare RESULTS --compare SAGE --out tables",
    "compare RESULTS RESULTS/../more --compare SAGE --csv",
    "report RESULTS --compare SAGE --out tables.html",
    "cite RESULTS",
)
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


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two folders of results on a dataset with a long name; one run of the first is not finished."""
    monkeypatch.chdir(tmp_path)
    cells = [0.5, 0.6, 0.7, 0.8]
    for at, algorithm in enumerate(("ERM", "SAGE")):
        for trial in range(2):
            facts = {"dataset": "TerraIncognita", "algorithm": algorithm, "trial": trial}
            sweep_folder.write_flat(tmp_path / "results", [cell + 0.01 * at * trial for cell in cells], **facts)
    lines = sweep_folder.records([cells], [cells], dataset="TerraIncognita", algorithm="SAM")
    sweep_folder.write(tmp_path / "results", lines, name="half", done=False)
    sweep_folder.write_flat(tmp_path / "more", cells, dataset="TerraIncognita", trial=7, device="cuda")
    return "results"


@pytest.mark.parametrize("command", OF_RESULTS)
def test_results_fit_80_columns(results, capsys, monkeypatch, command):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(command.replace("RESULTS", results).split()) == 0
    printed = capsys.readouterr()
    rows = printed.out.splitlines() if "--csv" not in command else []
    assert len(max([*rows, *printed.err.splitlines()], key=len)) <= 80


def test_the_heading_of_a_table_keeps_its_words(results):
    table = tables.build(load_records(Path(results)).records, "oracle")
    selection = "model selection method: test-domain validation set (oracle)"
    by_oracle = render.text(table).splitlines()
    assert by_oracle[:2] == ["-------- Dataset: TerraIncognita,", f"         {selection}"]
    assert not any("Averages" in line for line in by_oracle)  # of one dataset they stand in its own table
    assert f"-------- Averages, {selection}" in render.text(replace(table, grids=())).splitlines()


@pytest.mark.parametrize("action", ["check", "check --images", "manifest", "cache"])
def test_actions_on_data_fit_80_columns(say, monkeypatch, tmp_path, action):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "PACS", few(datasets["PACS"]), "two of each")
    name, *options = action.split()
    assert len(widest(say("data", name, "PACS", "--data_dir", ".", *options))) <= 80


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
