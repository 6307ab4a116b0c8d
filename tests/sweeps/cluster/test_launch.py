"""Launching, cancelling and retrying with a Slurm that keeps a queue and runs nothing."""

import json
import os
import pickle
import re
import threading
import time

import pytest

from domainbed_sage.cli import main
from domainbed_sage.core.errors import UserError
from domainbed_sage.sweeps.cluster import ledger, slurm, submit
from domainbed_sage.sweeps.cluster.ledger import Array
from domainbed_sage.sweeps.sweep import read_sweep
from domainbed_sage.training.notes import note_failure

TEXT = """
name: s
datasets: [EmojiStyles]
algorithms: [ERM, SAGE]
trials: 1
steps: 3
checkpoint_freq: 2
hparams: {width: 8, batch_size: 2}
"""
EIGHT = "Submitted 8 runs in 8 jobs (1 array)."


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "s.yaml").write_text(TEXT)
    return tmp_path / "s.yaml"


@pytest.fixture
def say(sweep, fake_slurm, capsys):
    """One `sweep` command; returns what it says."""

    def call(action, *words, status=0):
        places = ["--output_dir", str(results(sweep))]
        assert main(["sweep", action, str(sweep), *places, *map(str, words)]) == status
        said = capsys.readouterr()
        return said.out if status == 0 else said.err

    return call


@pytest.fixture
def launch(say):
    return lambda *words, **options: say("launch", *("--gres", "gpu:1", "--min-free-gb", 0), *words, **options)


def results(sweep):
    return sweep.parent / "results"


def runs_of(sweep):
    return read_sweep(sweep).runs()


def arrays(sweep):
    return ledger.read(results(sweep))


def counts(say):
    return {state: n for state, n in json.loads(say("status", "--json"))["counts"].items() if n}


def tasks(sweep):
    """The jobs as they would be executed, by id."""
    found = {}
    for path in (results(sweep) / "jobs").glob("*/*_submitted.pkl"):
        found[path.name.removesuffix("_submitted.pkl")] = pickle.loads(path.read_bytes())
    return found


# What is submitted


def test_every_run_is_a_job(sweep, fake_slurm, launch, say):
    assert launch().startswith(EIGHT)
    (array,) = arrays(sweep)
    assert list(fake_slurm.queue) == list(array.ids)
    assert {entry[1] for entry in fake_slurm.queue.values()} == {array.name}
    assert [names for (names,) in array.tasks] == [run.folder_name for run in runs_of(sweep)]
    submitted = tasks(sweep)
    assert [[run.folder_name for run in submitted[job].function.runs] for job in array.ids] == list(
        map(list, array.tasks)
    )
    assert counts(say) == {"queued": 8}
    assert launch() == launch()  # nothing is submitted twice
    assert launch().startswith("Nothing to submit: 8 queued.")
    assert len(fake_slurm.queue) == 8


def test_what_a_job_knows(sweep, fake_slurm, launch, monkeypatch):
    monkeypatch.chdir(sweep.parent)
    launch("--signal-delay-s", 100, "--runs-per-gpu", 2, "--save-every-s", 7, "--data_dir", "data")
    job = next(iter(tasks(sweep).values()))
    task = job.function
    assert (task.grace_s, task.at_once, len(task.runs), task.wants_gpu, task.device_given) == (60, 2, 2, True, False)
    assert task.machine.output_dir == results(sweep).resolve()
    assert (task.machine.data_dir, task.machine.save_every_s) == (sweep.parent.resolve() / "data", 7)
    assert job._timeout_countdown == submit.MAX_RESTARTS


@pytest.mark.parametrize("runs_per_job", [1, 8])
def test_the_script(fake_slurm, launch, runs_per_job):
    """Of an array, and of a single job, which submitit submits in another way."""
    launch("--runs-per-job", runs_per_job, "--parallelism", 3)
    (script,) = fake_slurm.scripts()
    assert ("#SBATCH --array=0-7%3" in script) == (runs_per_job == 1)
    assert """sh -c 'trap "" USR2; exec "$@"' sh """ in script
    assert "#SBATCH --requeue" in script


def test_runs_share_jobs(sweep, fake_slurm, launch):
    assert launch("--runs-per-job", 2, "--runs-per-gpu", 2).startswith("Submitted 8 runs in 2 jobs (1 array).")
    assert [len(task) for task in arrays(sweep)[0].tasks] == [4, 4]


def test_limits_of_arrays_and_of_the_queue(sweep, fake_slurm, launch):
    said = launch("--max-array", 2, "--max-jobs", 5)
    assert said.startswith("Submitted 5 runs in 5 jobs (3 arrays).\n3 runs more are over the limit of 5 jobs")
    assert [len(array.tasks) for array in arrays(sweep)] == [2, 2, 1]
    assert launch("--max-jobs", 5).startswith("Nothing to submit: 5 queued, 3 missing.\n3 runs more are over")
    fake_slurm.end(arrays(sweep)[0].ids[0])
    assert launch("--max-jobs", 5).startswith("Submitted 1 runs in 1 job (1 array); before: 4 queued.")


@pytest.mark.parametrize(("config", "largest"), [("MaxArraySize = 4", 3), ("MaxArraySize = 1", 1), ("Other = 1", 8)])
def test_the_cluster_limits_arrays(sweep, fake_slurm, launch, config, largest):
    fake_slurm.say("config", config)
    launch("--max-array", 100)
    assert max(len(array.tasks) for array in arrays(sweep)) == largest


def test_without_a_setting_the_cluster_decides(sweep, fake_slurm, launch):
    fake_slurm.say("config", "MaxArraySize = 6")
    launch()
    assert [len(array.tasks) for array in arrays(sweep)] == [5, 3]


# The environment of the shell


def test_the_job_of_the_shell_has_no_say(fake_slurm, launch, monkeypatch):
    theirs = {
        "SLURM_JOB_ID": "7",
        "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
        "SLURM_MEM_PER_NODE": "1000",
        "SLURMD_NODENAME": "n1",
        "SBATCH_TIMELIMIT": "5",
        "SBATCH_MEM_PER_CPU": "1",
        "SALLOC_ACCOUNT": "x",
        "SRUN_CPUS_PER_TASK": "1",
        "PMI_RANK": "0",
        "PMIX_RANK": "0",
    }
    ours = dict.fromkeys(
        ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS", "SBATCH_CLUSTERS", "NO_SLURM_"), "ours"
    )
    for name, value in (theirs | ours).items():
        monkeypatch.setenv(name, value)
    launch()
    seen = fake_slurm.calls("sbatch")[0]["environ"]
    assert theirs.keys() & seen.keys() == set()
    assert {name: seen.get(name) for name in ours} == ours
    assert {name: os.environ[name] for name in theirs} == theirs  # here nothing has changed


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ((), {"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS"}),
        (("--account", "mine"), {"SBATCH_PARTITION", "SBATCH_QOS"}),
        (("--partition", "gpu", "--qos", "high"), {"SBATCH_ACCOUNT"}),
        (("--site", "site.yaml"), {"SBATCH_ACCOUNT", "SBATCH_PARTITION"}),
    ],
)
def test_habits_decide_what_the_settings_leave_open(sweep, fake_slurm, launch, monkeypatch, words, kept):
    """For sbatch a variable wins over what a script says."""
    (sweep.parent / "site.yaml").write_text("extra: {qos: low}\n")
    monkeypatch.chdir(sweep.parent)
    names = ("SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS")
    for name in names:
        monkeypatch.setenv(name, "habit")
    launch(*words)
    assert fake_slurm.calls("sbatch")[0]["environ"].keys() & set(names) == kept


def test_the_environment_comes_back_after_an_error(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    try:
        with slurm.outside_of_jobs():
            assert "SLURM_JOB_ID" not in os.environ
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert os.environ["SLURM_JOB_ID"] == "7"


# Refusals, and launchers that die


def test_slurm_refuses(sweep, fake_slurm, launch, say):
    fake_slurm.say("sbatch.refuses", "allocation failure: Requested node configuration is not available\n")
    message = launch("--partition", "gpu", status=2)
    expected = "Slurm refuses these jobs: Requested node configuration is not available. Asked for: "
    assert f"error: {expected}" in message
    for asked in ("partition=gpu", "gres=gpu:1", "cpus_per_task=8", "time=240", "mem=32768M"):
        assert asked in message
    assert "Nothing of this array was submitted." in message
    assert "Traceback" not in message
    assert not list((results(sweep) / "jobs").glob("*"))
    assert counts(say) == {"missing": 8}


def test_a_refusal_that_is_not_repeated(sweep, fake_slurm, launch):
    """sbatch --test-only finds nothing wrong: then what submitit heard is told."""
    fake_slurm.say("sbatch.refuses", "")
    assert "Slurm refuses these jobs: " in launch(status=2)
    program = fake_slurm.folder / "bin" / "sbatch"
    program.write_text('#!/bin/sh\n[ "$1" = --test-only ] || { echo QOSMaxSubmitJobPerUserLimit >&2; exit 1; }\n')
    (fake_slurm.folder / "sbatch.refuses").unlink()
    assert "Slurm refuses these jobs: QOSMaxSubmitJobPerUserLimit" in launch(status=2)


def test_sbatch_that_was_heard_before_it_failed(sweep, fake_slurm, launch, say):
    fake_slurm.say("sbatch.fails", "Socket timed out on send/recv operation\n")
    assert "Socket timed out on send/recv operation" in launch(status=2)
    assert fake_slurm.queue == {}
    assert arrays(sweep) == []
    (fake_slurm.folder / "sbatch.fails").unlink()
    assert launch().startswith(EIGHT)


def test_the_array_is_noted_before_sbatch_is_called(sweep, fake_slurm, launch, monkeypatch):
    """A launcher that dies after sbatch leaves jobs that can be found by their name; the next one cancels them."""

    def die(results, array, write=ledger.write):
        if array.ids:
            raise SystemExit("killed")
        write(results, array)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write", die)
        with pytest.raises(SystemExit):
            launch()
    (orphan,) = arrays(sweep)
    assert orphan.ids == ()
    assert len(fake_slurm.queue) == 8
    assert launch().startswith(EIGHT)
    cancelled = [job for call in fake_slurm.calls("scancel") for job in call["words"][1:]]
    assert len(cancelled) == 8
    assert {entry[1] for entry in fake_slurm.queue.values()} == {arrays(sweep)[1].name}


def test_no_command_no_ledger(sweep, launch, fake_slurm, monkeypatch):
    (fake_slurm.folder / "bin" / "scontrol").unlink()
    monkeypatch.setenv("PATH", str(fake_slurm.folder / "bin"))  # a real one may be installed
    assert "There is no command scontrol" in launch(status=2)
    assert arrays(sweep) == []


def test_launches_wait_for_one_another(sweep, fake_slurm, launch):
    """The second one finds what the first has submitted."""
    said = []
    with ledger.locked(results(sweep)):
        second = threading.Thread(target=lambda: said.append(launch()))
        second.start()
        time.sleep(0.3)
        assert fake_slurm.queue == {}
    second.join(60)
    assert said[0].startswith(EIGHT)


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
    assert said.startswith("Submitted 1 runs in 1 job (1 array); before: 1 done, 5 queued, 2 failed.\n1 failed with a")
    assert arrays(sweep)[1].tasks == ((lost.folder_name,),)
    said = say("retry", "--failed", "--gres", "gpu:1", "--min-free-gb", 0)
    assert said.startswith("Submitted 1 runs in 1 job (1 array); before: 1 done, 6 queued, 1 failed.")
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
    assert "lies on a file system without locks (No locks available)" in launch(status=2)


# Slurm's commands


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
