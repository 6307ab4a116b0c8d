"""Flags whose values cannot be: one message, whatever the command, and nothing is begun."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from domainbed_sage.cli import main
from domainbed_sage.data.specs import datasets, folder_dataset

pytestmark = pytest.mark.usefixtures("forget_plugins", "restore_signals")
LONG = "x" * 300
DEEP = "/".join(["y" * 200] * 25)
SWEEP = "name: s\ndatasets: [EmojiStyles]\nalgorithms: [ERM]\ntrials: 1\ntest_envs: [[0]]\n"


@pytest.fixture
def say(capsys, tmp_path, monkeypatch):
    """Call the command in an empty folder with a sweep file; its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SWEEP)

    def call(*words):
        try:
            status = main(list(words))
        except SystemExit as stop:  # argparse's own mistakes
            status = stop.code
        return status, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --num_workers -1", "--num_workers: should be a whole number from 0 to 1,024. Found '-1'."),
        ("train --num_workers 1025", "--num_workers: should be a whole number from 0 to 1,024. Found '1025'."),
        ("sweep run s.yaml --jobs -1", "--jobs: should be a whole number from 1 to 1,024. Found '-1'."),
        ("sweep run s.yaml --jobs 0", "--jobs: should be a whole number from 1 to 1,024. Found '0'."),
        ("sweep run s.yaml --jobs two", "--jobs: should be a whole number from 1 to 1,024. Found 'two'."),
        ("sweep plan s.yaml --pass_time -1", "--pass_time: should be a number > 0. Found '-1'."),
        ("sweep plan s.yaml --pass_time nan", "--pass_time: should be a number > 0. Found 'nan'."),
        ("sweep plan s.yaml --pass_time inf", "--pass_time: should be a number > 0. Found 'inf'."),
        ("sweep plan s.yaml --pass_time 1s", "--pass_time: should be a number > 0. Found '1s'."),
        ("sweep plan s.yaml --efficiency 0", "--efficiency: should be a number > 0 and ≤ 1. Found '0'."),
        ("sweep plan s.yaml --efficiency 1.1", "--efficiency: should be a number > 0 and ≤ 1. Found '1.1'."),
        ("sweep plan s.yaml --efficiency nan", "--efficiency: should be a number > 0 and ≤ 1. Found 'nan'."),
        ("sweep plan s.yaml --efficiency half", "--efficiency: should be a number > 0 and ≤ 1. Found 'half'."),
        ("sweep plan s.yaml --pass_time 1 --pass_rows 0", "--pass_rows: should be a whole number ≥ 1. Found '0'."),
        ("sweep status s.yaml --watch 0", "--watch: should be a whole number from 1 to 86,400. Found '0'."),
        ("sweep logs s.yaml env0 -n 0", "-n/--lines: should be a whole number ≥ 1. Found '0'."),
        ("data cache PACS --image_size 0", "--image_size: should be a whole number from 1 to 10,000. Found '0'."),
        ("data prepare EmojiStyles --size -1", "--size: should be a whole number from 1 to 10,000. Found '-1'."),
        ("sweep launch s.yaml --cluster local --runs-per-gpu 0", "runs_per_gpu should be a whole number ≥ 1. Found 0."),
        ("sweep launch s.yaml --cluster local --gpus 0", "gpus should be a whole number ≥ 1 or null. Found 0."),
        (
            "sweep launch s.yaml --cluster local --mem-gb nan",
            "mem_gb should be a number of GB > 0, e.g. 32. Found nan.",
        ),
        ("train --steps 1000000001", "steps should be a whole number ≥ 1 and ≤ 1,000,000,000. Found 1000000001."),
        ("train --seed -1", "seed should be a whole number ≥ 0 and ≤ 9,223,372,036,854,775,807. Found -1."),
        ("train --trial_seed 9223372036854775808", "trial_seed should be a whole number ≥ 0 and ≤ 9,223,372,036,854"),
        ("train --hparams_seed -3", "hparams_seed should be a whole number ≥ 0 and ≤ 9,223,372,036,854,775,807. Found"),
        ("train --holdout_fraction nan", "holdout_fraction should be between 0 and 1. Found nan."),
        ('train --hparams {"lr":1e-3,"lr":1e-5}', "the key 'lr' 2 times"),
    ],
)
def test_impossible_numbers(say, words, message):
    status, out, err = say(*words.split())
    assert (status, out) == (2, "")
    assert message in err
    assert {path.name for path in Path().rglob("*") if path.is_file()} <= {"s.yaml", "plan.json"}


COMMANDS = """
train --steps 1 --output_dir {}
sweep list s.yaml --output_dir {}
sweep status s.yaml --output_dir {}
sweep list {}
sweep launch s.yaml --site {}
table {}
list models --plugin {}
data check PACS --data_dir {}
weights check {}/x
weights list --weights_dir {}
evaluate {}
verify {}.npz
"""


@pytest.mark.parametrize("place", [LONG, DEEP], ids=["name", "path"])
@pytest.mark.parametrize("words", COMMANDS.strip().splitlines())
def test_names_that_no_file_system_takes(say, words, place):
    status, _, err = say(*words.format(place).split())
    assert status == 2
    assert re.fullmatch(r"error: .*name too long.*\n?", err)
    assert {path.name for path in Path().rglob("*") if path.is_file()} <= {"s.yaml", "plan.json"}


def test_a_name_too_long_says_what_to_do(say):
    assert say("table", LONG)[2] == f"error: Cannot use {LONG}: File name too long. Choose a shorter name.\n"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "Make it accessible, or choose another place."),
        (errno.ELOOP, "Links lead to each other there: remove one of them."),
        (errno.EIO, "The disk, or the way to its server, is in trouble"),
        (errno.EMFILE, "Raise the limit of open files"),
    ],
)
def test_what_the_system_refuses_at_any_look_is_a_message(say, monkeypatch, number, advice):
    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    status, _, err = say("table", "results")
    assert status == 2
    assert err.startswith(f"error: Cannot use results: {os.strerror(number)}. {advice}")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no such file", "x"), OSError("anything")])
def test_what_may_be_our_own_fault_keeps_its_stack_trace(say, monkeypatch, error):
    def fail(path):
        raise error

    monkeypatch.setattr(Path, "is_dir", fail)
    with pytest.raises(OSError, match=re.escape(str(error))):
        say("table", "results")


def test_output_to_a_full_disk():
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "domainbed_sage", "data", "list"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (2, "error: Cannot write the output: No space left on device.\n")


@pytest.mark.parametrize("more", ["", ", EmojiStyles"])
def test_a_plan_for_a_dataset_whose_numbers_of_images_nobody_has_said(say, monkeypatch, more):
    monkeypatch.setattr(datasets, "_things", dict(datasets._things))
    folder_dataset("Cams", "cams", ("hall", "street", "yard"), 2, model="small_cnn")
    Path("s.yaml").write_text(SWEEP.replace("[EmojiStyles]", f"[Cams{more}]") + "steps: 2\n")
    status, out, err = say("sweep", "plan", "s.yaml", "--pass_time", "1")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[lines.index("Cams") + 1].split()[5] == "?"
    assert "nan" not in out
    assert "Without the evaluations on Cams: how many images it has is not known before it" in out
    assert ("times as many" in out) == bool(more)


def test_a_plan_of_known_numbers_says_nothing_of_unknown_ones(say):
    out = say("sweep", "plan", "s.yaml")[1]
    assert "Without the evaluations" not in out
    assert "?" not in out


def test_a_plan_for_a_gpu(say):
    status, out, err = say("sweep", "plan", "s.yaml", "--device", "v100", "--efficiency", "0.25")
    assert (status, err) == (0, "")
    assert "Hours of one NVIDIA V100 SXM2 at 25 % of its data sheet's rates (fp32 15.7 TFLOP/s), by precision:" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("all") and line.endswith("-"))
    assert (float(row[2]) > 0, row[3:]) == (True, ["-", "-", "-"])
    assert "For hours, give" not in out


def test_a_plan_for_a_gpu_that_is_not_known(say):
    status, out, err = say("sweep", "plan", "s.yaml", "--device", "tpu")
    assert (status, out) == (2, "")
    assert "--device should be one of v100, a100" in err
