"""What becomes of launched jobs, in a Slurm that keeps a queue and runs nothing, and the notes kept of them."""

import re

from launches import arrays, counts, results, runs_of

from domainbed_sage.sweeps.cluster import ledger, slurm
from domainbed_sage.sweeps.cluster.ledger import Array
from domainbed_sage.training.notes import note_failure

# What becomes of the jobs


def test_lost_runs_are_launched_again_and_failed_ones_are_retried(sweep, fake_slurm, launch, say):
    launch()
    ids, (lost, failed, waiting, done, *_) = arrays(sweep)[0].ids, runs_of(sweep)
    for run in (lost, failed, done):
        (results(sweep) / run.folder_name).mkdir()
        (results(sweep) / run.folder_name / "run.json").write_text("{}")
    note_failure(results(sweep) / failed.folder_name, "UserError", "loss is not finite")
    (results(sweep) / done.folder_name / "done").touch()
    for job in (ids[0], ids[1], ids[3]):
        fake_slurm.end(job)
    fake_slurm.say("accounts", f"{ids[0]}|OUT_OF_MEMORY\n{ids[1]}|FAILED\n{ids[3]}|COMPLETED\n")
    assert counts(say) == {"done": 1, "queued": 5, "failed": 2}
    shown = say("status")
    assert "1 failed: OUT_OF_MEMORY: its job ended without a word" in shown
    assert "1 failed: loss is not finite" in shown
    assert "Jobs wait: 5 Priority" in shown

    said = launch()
    assert said.startswith("Submitted 1 run in 1 job (1 array); before: 1 done, 5 queued, 2 failed.\n1 failed with a")
    assert arrays(sweep)[1].tasks == ((lost.folder_name,),)
    said = say("retry", "--failed", "--gres", "gpu:1", "--min-free-gb", 0)
    assert said.startswith("Submitted 1 run in 1 job (1 array); before: 1 done, 6 queued, 1 failed.")
    assert "failed with an error" not in said
    assert arrays(sweep)[2].tasks == ((failed.folder_name,),)
    assert waiting.folder_name not in {name for array in arrays(sweep)[1:] for (name,) in array.tasks}


def test_without_accounting_lost_is_lost(sweep, fake_slurm, launch, say):
    launch()
    (results(sweep) / runs_of(sweep)[0].folder_name).mkdir()
    (results(sweep) / runs_of(sweep)[0].folder_name / "run.json").write_text("{}")
    fake_slurm.end(arrays(sweep)[0].ids[0])
    fake_slurm.say("sacct.refuses", "Slurm accounting storage is disabled")
    assert "1 failed: lost: its job ended without a word" in say("status")


def test_a_job_that_left_only_its_log_is_lost(sweep, fake_slurm, launch, say):
    """It died before its run began: an import failed, for instance."""
    launch()
    (array,) = arrays(sweep)
    fake_slurm.say("accounts", "")
    (ledger.folder(results(sweep), array) / f"{array.ids[0]}_0_log.err").write_text("ImportError: torch\n")
    fake_slurm.end(array.ids[0])
    fake_slurm.end(array.ids[1])
    assert counts(say) == {"queued": 6, "failed": 1, "missing": 1}
    assert "ImportError: torch" in say("status")


def test_a_running_job(sweep, fake_slurm, launch, say):
    launch()
    first = arrays(sweep)[0].ids[0]
    fake_slurm.set(first, "RUNNING", "node1")
    assert counts(say) == {"queued": 8}  # its run has not begun
    folder = results(sweep) / runs_of(sweep)[0].folder_name
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    assert counts(say) == {"running": 1, "queued": 7}
    assert "Jobs wait: 7 Priority" in say("status")
    fake_slurm.set(first, "PENDING", "(BeginTime)")  # queued again
    assert counts(say) == {"queued": 8}


def test_cancel(sweep, fake_slurm, launch, say):
    launch("--max-array", 3)
    fake_slurm.set(arrays(sweep)[0].ids[0], "RUNNING", "node1")
    fake_slurm.queue["7"] = ["RUNNING", "another", "node1"]
    assert say("cancel").startswith("Cancelled 8 jobs, 1 of them running.")
    assert fake_slurm.queue == {}
    assert say("cancel").startswith("Cancelled 0 jobs")
    assert len(fake_slurm.calls("scancel")) == 1
    assert counts(say) == {"missing": 8}


def test_other_jobs_are_not_touched(sweep, fake_slurm, launch, say, tmp_path):
    launch()
    other = tmp_path / "other.sh"
    other.write_text("#SBATCH --job-name=other\n")
    slurm.call("sbatch", str(other))
    say("cancel")
    assert [entry[1] for entry in fake_slurm.queue.values()] == ["other"]


def test_slurm_that_does_not_answer(sweep, fake_slurm, launch, say):
    """To look is possible, to launch is not: runs could be submitted twice."""
    launch()
    fake_slurm.say("squeue.refuses", "slurm_load_jobs error: Unable to contact slurm controller")
    assert counts(say) == {"queued": 8}
    assert "Slurm could not be asked" in say("status")
    assert "squeue" in launch(status=2)
    assert len(arrays(sweep)) == 1


# The ledger


def test_names_of_arrays():
    """squeue separates names by commas; two arrays of one second differ."""
    names = {ledger.new_name("my sweep, v/2") for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(r"my-sweep--v-2-\d{4}-\d{6}-[0-9a-f]{6}", name) for name in names)


def test_ids_that_were_not_noted_come_from_the_queue(sweep, fake_slurm, launch):
    launch()
    (array,) = arrays(sweep)
    unknown = Array(array.name, array.tasks)
    found = dict(unknown.jobs(slurm.queue([array.name])))
    assert found == dict(zip(array.ids, array.tasks, strict=True))
    single = Array("single", (("a", "b"),))
    assert dict(single.jobs({"9": slurm.QueuedJob("9", "PENDING", "single", "")})) == {"9": ("a", "b")}
    assert dict(single.jobs({"9": slurm.QueuedJob("9", "PENDING", "another", "")})) == {}


def test_arrays_in_the_order_of_their_launches(tmp_path):
    for name, when in (("b", 2.0), ("c", 1.0), ("a", 3.0)):
        ledger.write(tmp_path, Array(name, (("run",),), when=when))
    assert [array.name for array in ledger.read(tmp_path)] == ["c", "b", "a"]


def test_an_entry_that_vanishes_is_forgotten(tmp_path, monkeypatch):
    ledger.write(tmp_path, Array("a", (("run",),)))
    (tmp_path / "jobs" / "b").mkdir()
    (tmp_path / "jobs" / "b" / "array.json").symlink_to("nowhere")
    assert [array.name for array in ledger.read(tmp_path)] == ["a"]


def test_no_launch_without_locks(sweep, launch, monkeypatch):
    def flock(file, kind):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(ledger.fcntl, "flock", flock)
    assert "is on a file system without locks (No locks available)" in launch(status=2)
