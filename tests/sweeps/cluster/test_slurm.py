"""Sweeps on a real Slurm: `make test-slurm` brings one up on this host and runs these."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import wait_for
from slurm_bed import ROOT, Bed, slurm, wait_until

from domainbed_sage.cli import main

pytestmark = pytest.mark.usefixtures("forget_plugins", "slurm_is_up")
TESTBED = ROOT / "scripts" / "slurm_testbed.sh"


@pytest.fixture(scope="session")
def slurm_is_up():
    if "SLURM_CONF" in os.environ and shutil.which("scontrol"):
        return
    assert "DOMAINBED_SAGE_SLURM_REQUIRED" not in os.environ, "these tests must not be skipped here"
    pytest.skip("there is no Slurm here: `make test-slurm` brings one up (Debian, root)")


@pytest.fixture
def bed(tmp_path):
    """Make sweeps; nothing of them is left in the queue after the test."""
    made = []

    def make(text, slow_s=0.0):
        made.append(Bed(tmp_path, text, slow_s))
        return made[-1]

    yield make
    for sweep in made:
        if jobs := list(sweep.queue()):
            slurm("scancel", *jobs)
            wait_until(lambda: not sweep.queue(), 60, "an empty queue")  # noqa: B023 - called at once


@pytest.fixture
def nothing_starts():
    """Jobs stay in the queue."""
    slurm("scontrol", "update", "partition=low", "state=down")
    yield
    slurm("scontrol", "update", "partition=low", "state=up")


FOUR = "algorithms: [SlowERM]\ntrials: 1\nsteps: 20\ncheckpoint_freq: 10\n"
ONE = FOUR.replace("SlowERM", "SlowSAGE") + "test_envs: [[0]]\n"


def test_gres_that_nobody_has(bed):
    sweep = bed(FOUR)
    message = sweep.say("launch", *sweep.launch_words(gres="gpu:h200:4"), status=2)
    assert "Slurm refuses these jobs: Requested node configuration is not available." in message
    assert "gres=gpu:h200:4" in message
    assert "Traceback" not in message
    assert not sweep.arrays()
    assert sweep.status()["counts"]["missing"] == 4


def test_two_launches_at_once(bed, nothing_starts):
    sweep = bed(FOUR)
    both = [sweep.start("launch", *sweep.launch_words(parallelism=2)) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[0].splitlines()[0] for process in both)
    assert said == ["Nothing to submit: 4 queued.", "Submitted 4 runs in 4 jobs (1 array)."]
    assert [len(array["ids"]) for array in sweep.arrays()] == [4]
    assert sweep.status()["counts"]["queued"] == len(sweep.queue()) == 4
    assert "Jobs wait: 4 PartitionDown" in sweep.say("status")


def test_scancel_of_a_waiting_task(bed, nothing_starts):
    sweep = bed(FOUR)
    sweep.launch()
    first = sweep.arrays()[0]
    slurm("scancel", first["ids"][2])
    wait_until(lambda: len(sweep.queue()) == 3, 20, "the job to vanish")
    states = {run["name"]: run["state"] for run in sweep.status()["runs"]}
    assert [states[name] for (name,) in first["tasks"]] == ["queued", "queued", "missing", "queued"]
    assert sweep.launch().startswith("Submitted 1 run in 1 job (1 array); before: 3 queued.")
    assert sweep.arrays()[1]["tasks"] == [first["tasks"][2]]
    assert sweep.say("cancel").startswith("Cancelled 4 jobs, 0 of them running.")
    wait_until(lambda: not sweep.queue(), 20, "an empty queue")
    assert sweep.status()["counts"]["missing"] == 4


def test_limits_of_arrays_and_of_the_queue(bed, nothing_starts):
    sweep = bed(FOUR.replace("trials: 1", "trials: 2"))
    said = sweep.launch(max_array=2, max_jobs=5)
    assert said.startswith("Submitted 5 runs in 5 jobs (3 arrays).\n3 runs more are over the limit of 5 jobs")
    assert [len(array["ids"]) for array in sweep.arrays()] == [2, 2, 1]
    assert sweep.launch(max_jobs=5).startswith("Nothing to submit: 5 queued, 3 missing.")


def test_time_limit(bed, tmp_path):
    """The run takes longer than Slurm lets it: it saves, queues itself again, and ends with the same bits."""
    sweep = bed(ONE.replace("steps: 20", "steps: 500"), slow_s=0.15)
    sweep.launch(timeout_min=2, signal_delay_s=60, save_every_s=1000)
    sweep.wait_for_all(900)
    assert min(sweep.restarts().values()) >= 1
    assert sweep.log("out.txt").count("Continuing at step") >= 1
    sweep.assert_undisturbed(tmp_path / "alone")


def test_node_that_is_given_up_while_its_task_lives(bed, tmp_path):
    """Slurm starts the job again on the other node; the ghost is fenced."""
    sweep = bed(ONE.replace("steps: 20", "steps: 600"), slow_s=0.1)
    sweep.launch()
    _, owner = sweep.one_under_way()
    node = sweep.queue()[owner.job][1]
    try:
        slurmd = Path(os.environ["SLURM_CONF"]).parent / "run" / f"slurmd-{node}.pid"
        os.kill(int(slurmd.read_text()), signal.SIGKILL)
        sweep.wait_for_all(900)
    finally:
        subprocess.run([TESTBED, "node", node], check=True)
    assert sweep.restarts()[owner.job] == 1
    assert f"succeeds process {owner.pid} on" in sweep.job_log(owner.job)
    assert "Fenced: " in sweep.job_log(owner.job)
    sweep.assert_undisturbed(tmp_path / "alone")
    wait_until(lambda: node in slurm("sinfo", "-h", "-N", "-t", "idle", "-o", "%N"), 60, "the node to come back")


def test_twenty_four_runs_and_every_kind_of_trouble(bed, tmp_path, capsys):
    text = "algorithms: [SlowERM, SlowSAGE]\ntrials: 3\nsteps: 120\ncheckpoint_freq: 40\n"
    sweep = bed(text, slow_s=0.05)
    assert sweep.launch(runs_per_job=3).startswith("Submitted 24 runs in 8 jobs (1 array).")

    _, preempted = sweep.one_under_way()
    node = sweep.queue()[preempted.job][1]
    high = ("sbatch", "-p", "high", "-w", node, "--gres=gpu:1", "-o", "/dev/null", "--wrap", "sleep 3")
    slurm(*high)
    wait_until(lambda: sweep.queue().get(preempted.job, ("",))[0] == "PENDING", 60, "the job to be preempted")

    _, requeued = sweep.one_under_way(but={preempted.job})
    slurm("scontrol", "requeue", requeued.job)

    _, killed = sweep.one_under_way(but={preempted.job, requeued.job})
    task = int(Path(f"/proc/{killed.pid}/stat").read_text().rsplit(")", 1)[1].split()[1])  # its parent, submitit's
    os.kill(task, signal.SIGKILL)
    wait_until(lambda: killed.job not in sweep.queue(), 60, "the killed job to vanish")
    again = sweep.launch(runs_per_job=3)
    assert again.startswith("Submitted ")

    _, stranded = sweep.one_under_way(but={preempted.job, requeued.job})
    node = sweep.queue()[stranded.job][1]
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    wait_until(lambda: sweep.queue()[stranded.job][1] != node, 60, "the job to leave the node")
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)  # or it came by itself
    wait_until(lambda: node in slurm("sinfo", "-h", "-N", "-t", "idle,alloc,mix", "-o", "%N"), 60, "the node")

    sweep.wait_for_all(900)
    restarts = sweep.restarts()
    assert all(restarts[owner.job] >= 1 for owner in (preempted, requeued, stranded))
    assert sweep.log("out.txt").count("Continuing at step") >= 4
    assert sweep.status()["counts"] == {"done": 24, "running": 0, "queued": 0, "failed": 0, "missing": 0}
    sweep.assert_undisturbed(tmp_path / "alone")
    assert sweep.launch() == sweep.launch()  # nothing is left to submit, however often
    capsys.readouterr()
    assert main(["table", str(sweep.results), "--pictures"]) == 0
    shown = capsys.readouterr().out
    assert "SlowSAGE" in shown
    assert "Missing" not in shown
    assert (sweep.results / "table.png").stat().st_size > 10_000


def test_both_halves_in_one_sweep(bed, tmp_path, capsys):
    """Runs on several tasks are requeued and killed as all others, with the same bits; each half has its table."""
    sweep = bed("algorithms: [SlowERM, SlowSAGE]\ntrials: 1\nsteps: 60\ncheckpoint_freq: 20\n", slow_s=0.1)
    sweep.file.write_text(sweep.file.read_text().replace("[EmojiStyles]", "[EmojiStyles, Rooms]"))
    assert sweep.launch().startswith("Submitted 10 runs in 10 jobs (1 array).")

    def on_rooms(but=()):
        return next((owner for run, owner in sweep.under_way(but).items() if run.name.startswith("Rooms-")), None)

    requeued = wait_until(on_rooms, 300, "a run on Rooms")
    slurm("scontrol", "requeue", requeued.job)
    killed = wait_until(lambda: on_rooms({requeued.job}), 300, "the other run on Rooms")
    os.kill(killed.pid, signal.SIGKILL)  # its job lets another process continue the run
    sweep.wait_for_all(900)
    assert sweep.restarts()[requeued.job] >= 1
    assert sum("Continuing at step" in (run / "out.txt").read_text() for run in sweep.folders()) >= 2
    sweep.assert_undisturbed(tmp_path / "alone")
    capsys.readouterr()
    assert main(["table", str(sweep.results)]) == 0
    shown = capsys.readouterr().out
    assert "Dataset: EmojiStyles" in shown
    assert "Dataset: Rooms, test samples" in shown
    assert "Missing" not in shown


def test_failures_are_grouped_and_retried(bed):
    """The runs fail as long as their learning rate is impossible to survive; status says so, retry starts them."""
    sweep = bed(FOUR + "optimizer: sgd\n")
    text = sweep.file.read_text()
    sweep.file.write_text(text.replace("width: 8", "width: 8, lr: 1.0e+38"))
    sweep.launch(runs_per_job=4)
    wait_until(lambda: not sweep.queue(), 120, "the end of the job")
    shown = sweep.say("status")
    assert "4 failed: " in shown
    assert "not finite" in shown
    assert "→ the run diverged" in shown
    assert sweep.launch().startswith("Nothing to submit: 4 failed.\n4 failed with an error")
    assert sweep.say("retry", "--failed", *sweep.launch_words()).startswith("Submitted 4 runs in 4 jobs (1 array)")
    wait_for(lambda: len(sweep.queue()) > 0, seconds=20)
