"""Parts of a results folder: the numbers of the whole, what is missing of the part, and names that are not there."""

import argparse

import pytest
from reference import sweep_folder

from domainbed_sage.cli import table as table_command
from domainbed_sage.core.errors import UserError
from domainbed_sage.results import tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.part import only


@pytest.fixture
def folder(tmp_path):
    """Three rows on two datasets; SAGE lacks the second trial, which only ERM has."""
    for dataset, shift in (("PACS", 0.0), ("VLCS", 0.1)):
        for at, algorithm in enumerate(("ERM", "SAM", "SAGE")):
            sweep_folder.write_flat(tmp_path, [0.5 + shift, 0.6 + at / 10], dataset=dataset, algorithm=algorithm)
        sweep_folder.write_flat(tmp_path, [0.5, 0.6], dataset=dataset, trial=1)
    return tmp_path


def build(loaded):
    return tables.build(loaded.records, "training-domain", expected=loaded.planned, notes=loaded.notes())


def command(*words):
    parser = argparse.ArgumentParser()
    table_command.add_arguments(parser)
    return table_command.main(parser.parse_args([str(word) for word in words]))


def test_all_is_the_whole(folder):
    loaded = load_records(folder)
    assert only(loaded) is loaded


def test_rows_and_datasets_have_the_numbers_of_the_whole(folder):
    loaded = load_records(folder)
    whole, part = build(loaded), build(only(loaded, ["SAGE", "ERM"], ["VLCS"]))
    assert list(part.averages.cells.index) == ["ERM", "SAGE"]  # in the order of the whole
    assert [grid.title for grid in part.grids] == ["VLCS"]
    (theirs,) = (grid for grid in whole.grids if grid.title == "VLCS")
    assert part.grids[0].strings().to_dict("index") == theirs.strings().loc[["ERM", "SAGE"]].to_dict("index")


def test_what_is_missing_of_the_part_is_said(folder):
    """Also where no row of the part has the trial that is missing."""
    part = build(only(load_records(folder), ["SAGE"], ["PACS"]))
    assert part.missing == (("PACS", "SAGE", 0, 1), ("PACS", "SAGE", 1, 1))
    assert part.footer[0] == "Missing: SAGE on PACS, held out env0, env1 (trial 1): no run."
    assert part.footer[-1] == "A part of the results: only rows SAGE; only datasets PACS."
    assert not any("SAM" in line for line in part.footer)


def test_unknown_names(folder):
    with pytest.raises(UserError, match="no row 'Sage' in these results"):
        only(load_records(folder), ["Sage"])
    with pytest.raises(UserError) as raised:
        only(load_records(folder), ["x", "ERM"], ["PAC"])
    assert len(raised.value.mistakes) == 2
    assert "There is no dataset 'PAC' in these results. Did you mean 'PACS'? Known: PACS, VLCS." in str(raised.value)
    sweep_folder.write_flat(folder, [0.5, 0.5], dataset="Third", algorithm="Own")
    (folder / "plan.json").write_text("[]")
    with pytest.raises(UserError, match="There is no run of Own on PACS"):
        only(load_records(folder), ["Own"], ["PACS"])


def test_command(folder, capsys):
    assert command(folder, "--algorithms", "SAM", "ERM", "--datasets", "PACS", "--only", "averages", "--latex") == 0
    printed = capsys.readouterr().out
    assert printed.count(r"\begin{table}") == 1
    assert "SAGE" not in (folder / "table.md").read_text() + (folder / "table.csv").read_text() + printed
    assert "## PACS" not in (folder / "table.md").read_text()
    assert "A part of the results: only rows ERM, SAM; only datasets PACS." in (folder / "table.md").read_text()
    assert command(folder, "--algorithms", "SAM", "--paper", "--out", folder / "out") == 0
    assert "A part of the results" in (folder / "out" / "paper.md").read_text()
    with pytest.raises(UserError, match="Did you mean 'SAM'"):
        command(folder, "--algorithms", "SAMM")


def test_several_folders_are_written_only_where_it_is_said(folder, tmp_path_factory, capsys):
    other = tmp_path_factory.mktemp("other")
    sweep_folder.write_flat(other, [0.7, 0.8], algorithm="GGA")
    assert command(folder, other) == 0
    printed = capsys.readouterr()
    assert "GGA" in printed.out
    assert "Wrote" not in printed.out
    assert "--out DIR" in " ".join(printed.err.split())
    assert not list(folder.glob("table*"))
    assert not list(other.glob("table*"))
    assert command(folder, other, "--out", other / "both") == 0
    assert "GGA" in (other / "both" / "table.md").read_text()


def test_pictures_in_the_formats_that_are_asked_for(folder):
    assert command(folder, "--algorithms", "SAM", "--datasets", "PACS", "--format", "svg", "pdf") == 0
    drawn = sorted(path.name for path in folder.iterdir() if path.suffix in (".png", ".pdf", ".svg"))
    assert drawn == ["curves.pdf", "curves.svg", "table.pdf", "table.svg"]
    assert load_records(folder).notes() == []  # they are no foreign entries
