"""`plan.json`: the runs that sweeps plan for a results folder."""

import json

import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.results import planned
from domainbed_sage.results.planned import Plan, PlannedRun


def plan(fingerprint="f", **changes):
    facts = {"folder_name": "run", "label": "row", "dataset": "PACS", "algorithm": "SAGE", "test_envs": (0, 2)}
    return Plan(fingerprint, (PlannedRun(**{**facts, "trial_seed": 1, "steps": 5, **changes}),))


def test_what_is_written_is_read(tmp_path):
    planned.write(tmp_path, "a", plan())
    assert planned.read(tmp_path) == {"a": plan()}


def test_sweeps_share_a_folder(tmp_path):
    for name, written in (("a", plan("1")), ("b", plan("2")), ("a", plan("3"))):
        planned.write(tmp_path, name, written)
    assert planned.read(tmp_path) == {"a": plan("3"), "b": plan("2")}


def test_an_equal_plan_is_not_written_again(tmp_path):
    planned.write(tmp_path, "a", plan())
    before = (tmp_path / "plan.json").stat().st_mtime_ns, (tmp_path / "plan.json").stat().st_ino
    planned.write(tmp_path, "a", plan())
    assert ((tmp_path / "plan.json").stat().st_mtime_ns, (tmp_path / "plan.json").stat().st_ino) == before


@pytest.mark.parametrize("place", ["", "nowhere", "file/inside"])
def test_no_plan(tmp_path, place):
    (tmp_path / "file").touch()
    assert planned.read(tmp_path / place) == {}


def test_plan_of_the_first_version(tmp_path):
    """It has no folders and no name of the sweep: enough for `table`, and gone with the next plan."""
    (tmp_path / "plan.json").write_text(json.dumps([["PACS", "SAGE", [3], 2]]))
    (run,) = planned.read(tmp_path)[planned.FORMER].runs
    assert (run.dataset, run.label, run.test_envs, run.trial_seed) == ("PACS", "SAGE", (3,), 2)
    planned.write(tmp_path, "a", plan())
    assert planned.read(tmp_path) == {"a": plan()}


GOOD = {"version": 2, "sweeps": {"a": {"fingerprint": "f", "runs": [["r", "l", "d", "a", [0], 1, 5]]}}}


def changed(at, value):
    run = [*GOOD["sweeps"]["a"]["runs"][0]]
    run[at] = value
    return json.dumps({"version": 2, "sweeps": {"a": {"fingerprint": "f", "runs": [run]}}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[",
        '{"trips": 3}',
        '"text"',
        "3",
        "null",
        '{"version": 3, "sweeps": {}}',
        '{"version": 2, "sweeps": []}',
        '{"version": 2, "sweeps": {"a": {"runs": []}}}',
        '{"version": 2, "sweeps": {"a": null}}',
        "[[1]]",
        "[" * 100_000,
        b"\xff\xfe",
        '{"version": 2, "sweeps": {}, "sweeps": {}}',
        changed(0, 7),
        changed(3, None),
        changed(4, 0),
        changed(4, ["0"]),
        changed(4, [-1]),
        changed(4, [1000]),
        json.dumps(GOOD).replace('"runs"', '"runs": [], "runs"'),
        changed(5, True),
        changed(6, 0.5),
    ],
    ids=lambda text: str(text)[:40],
)
def test_damaged(tmp_path, text):
    (tmp_path / "plan.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for use in (lambda: planned.read(tmp_path), lambda: planned.write(tmp_path, "b", plan())):
        with pytest.raises(UserError, match=r"plan.json is not a readable plan .* Remove it"):
            use()


def test_good_is_good(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(GOOD))
    assert planned.read(tmp_path)["a"].runs[0].steps == 5
