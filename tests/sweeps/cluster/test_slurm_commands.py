"""How Slurm's commands are called, and what is made of their answers."""

import json

import pytest

from domainbed_sage.core.errors import UserError
from domainbed_sage.sweeps.cluster import slurm


def test_many_names_and_many_jobs_are_asked_for_in_parts(fake_slurm, monkeypatch):
    monkeypatch.setattr(slurm, "NAMES_PER_CALL", 2)
    (fake_slurm.folder / "queue").write_text(json.dumps({f"{n}_0": ["PENDING", f"n{n}", "x|y"] for n in range(5)}))
    found = slurm.queue([f"n{n}" for n in range(5)] * 2)
    assert sorted(found) == [f"{n}_0" for n in range(5)]
    assert found["3_0"] == slurm.QueuedJob("3_0", "PENDING", "n3", "x|y")
    assert len(fake_slurm.calls("squeue")) == 3
    slurm.cancel(sorted(found))
    assert fake_slurm.queue == {}
    assert [len(call["words"]) for call in fake_slurm.calls("scancel")] == [3, 3, 2]


def test_nothing_is_not_asked_for(fake_slurm):
    """squeue and scancel without a name mean every job; sacct means today's."""
    assert slurm.queue([]) == {}
    assert slurm.accounts([]) == {}
    slurm.cancel([])
    assert not any(fake_slurm.calls(command) for command in ("squeue", "sacct", "scancel"))


def test_accounts(fake_slurm):
    fake_slurm.say("accounts", "7_0|CANCELLED by 1000\n7_1|TIMEOUT\n7_2|\n\nno line\n")
    assert slurm.accounts(["7_0", "7_1", "8_0"]) == {"7_0": "CANCELLED", "7_1": "TIMEOUT"}
    (call,) = fake_slurm.calls("sacct")
    assert "--jobs=7,8" in call["words"]


@pytest.mark.parametrize(
    ("command", "name"), [("squeue", "SQUEUE_SORT"), ("sacct", "SACCT_FORMAT"), ("scancel", "SCANCEL_STATE")]
)
def test_habits_hide_nothing(fake_slurm, monkeypatch, command, name):
    monkeypatch.setenv(name, "x")
    fake_slurm.say("accounts", "")
    slurm.queue(["a"])
    slurm.accounts(["7"])
    slurm.cancel(["7"])
    assert name not in fake_slurm.calls(command)[0]["environ"]


def test_all_of_the_queue_is_seen(fake_slurm):
    """Hidden partitions, and every task of an array on a line of its own."""
    slurm.queue(["a"])
    assert {"--all", "--array", "--noheader"} <= set(fake_slurm.calls("squeue")[0]["words"])


@pytest.mark.parametrize(
    ("state", "running"),
    [("PENDING", False), ("REQUEUED", False), ("RUNNING", True), ("COMPLETING", True), ("SUSPENDED", True)],
)
def test_states_of_jobs(state, running):
    assert slurm.QueuedJob("7", state, "a", "").running == running


def test_what_a_command_complains_of(fake_slurm):
    """Some complain where they should answer."""
    (fake_slurm.folder / "bin" / "squeue").write_text("#!/bin/sh\necho on the wrong channel\nexit 1\n")
    with pytest.raises(UserError, match=r"squeue --all --noheader … failed: on the wrong channel"):
        slurm.queue(["a"])
