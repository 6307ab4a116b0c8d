"""What is submitted, to a Slurm that keeps a queue and runs nothing."""

import os
import threading
import time

import generated_trees as trees
import pytest
from launches import EIGHT, arrays, counts, results, runs_of, tasks

from domainbed_sage.data import own
from domainbed_sage.data.specs import datasets
from domainbed_sage.sweeps.cluster import ledger, slurm, submit

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


@pytest.mark.usefixtures("forget_plugins")
def test_a_job_knows_the_folders_of_images(sweep, fake_slurm, launch, tmp_path):
    trees.plant(tmp_path / "Cams", {"hall": {"cat": 6, "dog": 6}, "street": {"cat": 6, "dog": 6}}, same=False)
    sweep.write_text(sweep.read_text().replace("[EmojiStyles]", "{Cams: {folder: Cams}}"))
    assert launch("--runs-per-job", 4).startswith("Submitted 4 runs in 1 job")
    del datasets._things["Cams"]
    own._specs.clear()
    (job,) = tasks(sweep).values()
    job.function.wants_gpu = False
    assert job.function() == "4 runs done, 0 were done before"


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
    assert launch("--max-jobs", 5).startswith("Submitted 1 run in 1 job (1 array); before: 4 queued.")


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
