"""Runs that are not finished: named once below a table, with how far they are."""

import pytest
from reference import sweep_folder

from domainbed_sage.results import api, planned, tables
from domainbed_sage.results.folder import load_records
from domainbed_sage.results.joined import load_folders
from domainbed_sage.results.planned import Plan, PlannedRun


@pytest.fixture
def folder(tmp_path):
    """PACS with two environments: ERM is done, SAGE done in one, begun in another with another setting done in it."""
    runs = []
    for label, env, seed, done in (
        ("ERM", 0, 0, True),
        ("ERM", 1, 0, True),
        ("SAGE", 0, 0, True),
        ("SAGE", 1, 0, False),
    ):
        name = f"{label}-{env}-{seed}"
        lines = sweep_folder.records([[0.1, 0.2]] * 2, [[0.5, 0.6]] * 2, algorithm=label, test_envs=[env])
        sweep_folder.write(tmp_path, lines, name=name, done=done)
        runs.append(PlannedRun(name, label, "PACS", label, (env,), 0, 5001))
    planned.write(tmp_path, "s", Plan("", tuple(runs)))
    return tmp_path


def footer(*folders):
    loaded = load_folders(folders)
    notes = loaded.notes(begun_told=True)
    made = tables.build(loaded.records, "training-domain", expected=loaded.planned, notes=notes, begun=loaded.begun)
    return [line for line in made.footer if "SAGE" in line]


def test_it_is_named_once(folder):
    sentence = "Missing: SAGE on PACS, held out env1 (trial 0): not finished (step 11 of 5,001)."
    assert footer(folder) == [sentence]
    assert [line for line in api.table(folder).footer if "SAGE" in line] == [sentence]


@pytest.mark.parametrize(
    ("note", "step"),
    [('{"step": 1200}', "1,200"), ('{"step": 3}', "11"), ("{", "11"), ("[]", "11"), ('{"step": "9"}', "11")],
)
def test_its_own_note_may_be_newer_than_its_records(folder, note, step):
    (folder / "SAGE-1-0" / "progress.json").write_text(note)
    assert f"not finished (step {step} of 5,001)." in footer(folder)[0]


@pytest.mark.parametrize("content", ["", "no record\nat all\n"])
def test_without_a_record_it_has_not_begun(folder, content):
    (folder / "SAGE-1-0" / "results.jsonl").write_text(content)
    assert "not finished (step 0 of 5,001)." in footer(folder)[0]


def test_no_run_is_another_reason(folder):
    for path in (folder / "SAGE-1-0").iterdir():
        path.unlink()
    (folder / "SAGE-1-0").rmdir()
    assert footer(folder) == ["Missing: SAGE on PACS, held out env1 (trial 0): no run."]


def test_where_another_setting_gives_the_result_it_is_left_out(folder):
    """Then nothing is missing, and the table would not name it."""
    lines = sweep_folder.records([[0.1, 0.2]], [[0.5, 0.6]], algorithm="SAGE", test_envs=[1], hparams_seed=1)
    sweep_folder.write(folder, lines, name="SAGE-1-1")
    assert footer(folder) == ["Left out, not finished: 1 (SAGE-1-0)."]


@pytest.fixture
def other(tmp_path_factory):
    """A folder of another lab: ERM on the same dataset."""
    path = tmp_path_factory.mktemp("other")
    sweep_folder.write_flat(path, [0.5, 0.6], trial=1)
    return path


def test_among_several_folders_it_is_named_once(folder, other):
    sentence = "Missing: SAGE on PACS, held out env1 (trial 0): not finished (step 11 of 5,001)."
    assert footer(folder, other) == footer(other, folder) == [sentence]
    assert [line for line in api.table([folder, other]).footer if "SAGE" in line] == [sentence]


def test_where_another_folder_gives_the_result_it_is_left_out(folder, other):
    lines = sweep_folder.records([[0.1, 0.2]], [[0.5, 0.6]], algorithm="SAGE", test_envs=[1])
    sweep_folder.write(other, lines, name="elsewhere")
    assert footer(folder, other) == [f"Left out, not finished: 1 ({folder / 'SAGE-1-0'})."]


def test_without_a_plan_it_is_left_out(folder):
    (folder / "plan.json").unlink()
    assert footer(folder)[-1] == "Left out, not finished: 1 (SAGE-1-0)."


def test_who_does_not_tell_it_otherwise_still_names_it(folder):
    assert load_records(folder).notes() == ["Left out, not finished: 1 (SAGE-1-0)."]


def test_included_it_is_not_waited_for(folder):
    loaded = load_records(folder, include_unfinished=True)
    assert loaded.begun == {}
    assert loaded.notes(begun_told=True) == ["Included although not finished: 1 (SAGE-1-0)."]
