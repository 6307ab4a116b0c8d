"""`domainbed-sage report`: where it writes, what it refuses, and what it says."""

import json
import re

import pytest
from report_cases import grow, made

from domainbed_sage.cli import main
from domainbed_sage.cli.report import PAGE
from domainbed_sage.results.folder import load_records

SMALL = {"PACS": 2}


@pytest.fixture
def folder(tmp_path):
    return grow(tmp_path / "runs", sizes=SMALL)


def test_writes_beside_the_runs_and_the_next_table_does_not_mention_it(folder, capsys):
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.split() == ["Wrote", str(folder / PAGE), "and", str(folder / "report.json")]
    assert json.loads((folder / "report.json").read_text())["state"]["command"] == f"domainbed-sage report {folder}"
    assert load_records(folder).left_out() == []


def test_options_reach_the_page_and_its_command(folder, tmp_path, capsys):
    words = ["--reference", "SAM", "--compare", "SAGE", "ERM", "--selection", "oracle", "--paper"]
    assert main(["report", str(folder), *words, "--out", str(tmp_path / "new" / "x.html")]) == 0
    numbers = json.loads((tmp_path / "new" / "x.json").read_text())
    assert numbers["state"]["command"] == f"domainbed-sage report {folder} {' '.join(words)}"
    assert numbers["differences"]["reference"] == "SAM"
    assert numbers["differences"]["declared"] == ["SAGE", "ERM"]
    assert numbers["state"]["selection"] == "test-domain validation set (oracle)"
    assert numbers["paper"]["unavailable"] == ""


def test_a_folder_is_a_place_for_the_page(folder, tmp_path):
    (tmp_path / "there").mkdir()
    assert main(["report", str(folder), "--out", str(tmp_path / "there")]) == 0
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"report.html", "report.json"}


def test_several_folders_are_one(folder, tmp_path, capsys):
    grow(tmp_path / "more", methods=("SWAD",), sizes=SMALL)
    words = ["report", str(folder), str(tmp_path / "more")]
    assert main(words) == 2
    assert "2 results folders are given. Say where to write the page with --out FILE." in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "x.html")]) == 0
    numbers = json.loads((tmp_path / "x.json").read_text())
    assert numbers["state"]["title"] == "runs + more"
    assert [row["method"] for row in numbers["averages"]["rows"]] == ["ERM", "SAGE", "SAM", "SWAD"]
    assert numbers["cost"]["rows"][3]["runs"] == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "x.json"], "--out should be a folder, or a file that ends with .html. Found x.json."),
        (["--reference", "ERN"], "There is no result of ERN to compare."),
    ],
)
def test_refusals_leave_nothing(folder, capsys, words, message):
    before = set(folder.iterdir())
    assert main(["report", str(folder), *words]) == 2
    assert re.search(re.escape(message), capsys.readouterr().err)
    assert set(folder.iterdir()) == before


def test_what_is_unreadable_is_named_and_counts(folder, capsys):
    (folder / "plan.json").write_text("{")
    assert main(["report", str(folder)]) == 1
    assert "Unreadable:\n  - " in capsys.readouterr().err
    assert "is not a readable plan" in made(folder, folder.parent)[1].sections["head"]
