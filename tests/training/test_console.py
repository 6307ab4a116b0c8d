"""What is printed of a run: one row for each evaluation, and nothing that belongs into its log files."""

import math
import subprocess
import sys

import pytest
from helpers import small_config

from domainbed_sage.training import console


@pytest.mark.parametrize(
    ("held_out", "shown"), [((0.5, 0.25), "37.5"), ((math.nan, math.nan), "-"), ((0.5, math.nan), "-")]
)
def test_row(held_out, shown):
    config = small_config(test_envs=[1, 3])
    record = {
        "step": 1200,
        "loss": 1.23456,
        "step_time": 0.0123,
        "env1_in_acc": held_out[0],
        "env3_in_acc": held_out[1],
    }
    row = console.row(record, config, 0.9, 0.95)
    assert row.split() == ["1,200", "90.0", shown, "95.0", "1.235", "0.0123"]
    assert len(row) == len(console.HEAD)


def test_a_method_without_a_loss():
    assert console.row({"step": 0}, small_config(), 0.9, 0.9).split() == ["0", "90.0", "-", "90.0", "-", "-"]


def test_held_out_environments_have_names():
    assert small_config(test_envs=[1, 3]).held_out == "noto+twemoji"


def test_the_command_prints_the_table_and_the_files_keep_the_rest(tmp_path):
    words = ["train", "--model", "small_cnn", "--steps", "3", "--checkpoint_freq", "2", "--device", "cpu"]
    words += ["--hparams", '{"width": 8, "batch_size": 2}', "--output_dir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", "domainbed_sage", *words], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines.count(console.HEAD) == 1
    assert [line.split()[0] for line in lines if line.startswith("       ") and "|" not in line] == ["0", "2"]
    assert "'batch_size'" not in done.stderr
    assert "env0_out_acc" not in done.stderr
    kept = (tmp_path / "run" / "out.txt").read_text()
    assert "'batch_size': 2" in kept
    assert "env0_out_acc" in kept
    assert console.HEAD in kept


def test_heads_of_columns_name_the_task_and_the_metric():
    keys = ("test_depth_abserr", "test_segmentation_miou")
    head = console.task_head(keys)
    assert head.split() == ["step", "depth_abserr", "segmenta…_miou", "loss", "s/step"]
    assert len(console.task_row({"step": 9, **dict.fromkeys(keys, 0.5)}, keys)) == len(head)
