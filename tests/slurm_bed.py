"""A sweep on the real Slurm of `scripts/slurm_testbed.sh`, and ways to disturb it."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from helpers import assert_same, run

from domainbed_sage.cli import main
from domainbed_sage.core.plugins import load_plugin
from domainbed_sage.sweeps.sweep import read_sweep
from domainbed_sage.training import ownership

ROOT = Path(__file__).parent.parent
SETTINGS = """
name: bed
datasets: [EmojiStyles]
plugins: [slow.py]
hparams: {width: 8, batch_size: 2}
"""
JOB = {"gres": "gpu:a100_3g.20gb:1", "cpus": 1, "mem-gb": 2, "timeout-min": 8, "save-every-s": 1, "look-every-s": 0.5}


def slurm(*words):
    """Output of one of Slurm's commands."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def wait_until(condition, seconds, what):
    """Wait for a condition and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.3)
    return value


class Bed:
    """A sweep file with its results folder, driven by the command line in processes of its own."""

    def __init__(self, folder, text, slow_s=0.0):
        shutil.copy(Path(__file__).parent / "slow.py", folder)
        self.file, self.results = folder / "s.yaml", folder / "results"
        self.file.write_text(SETTINGS + text)
        self.slow_s = str(slow_s)
        load_plugin(folder / "slow.py")

    def words(self, action, *words):
        return [str(word) for word in ("sweep", action, self.file, "--output_dir", self.results, *words)]

    def start(self, action, *words):
        """One `sweep` command in a process of its own, not waited for."""
        environ = os.environ | {"SLOW_S": self.slow_s, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "domainbed_sage", *self.words(action, *words)]
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def say(self, action, *words, status=0):
        """What one `sweep` command prints, in this process; the jobs inherit its environment."""
        out, err = io.StringIO(), io.StringIO()
        environ = mock.patch.dict(os.environ, SLOW_S=self.slow_s, PYTHONPATH=str(ROOT))
        with environ, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            assert main(self.words(action, *words)) == status
        return out.getvalue() if status == 0 else err.getvalue()

    def launch_words(self, **changes):
        pairs = {"device": "cpu", **JOB, **{key.replace("_", "-"): value for key, value in changes.items()}}
        return [word for key, value in pairs.items() for word in (f"--{key}", value)]

    def launch(self, **changes):
        return self.say("launch", *self.launch_words(**changes))

    def status(self):
        return json.loads(self.say("status", "--json"))

    def arrays(self):
        found = [json.loads(path.read_text()) for path in (self.results / "jobs").glob("*/array.json")]
        return sorted(found, key=lambda array: array["when"])

    def queue(self):
        """Id -> (state, node) of this sweep's jobs."""
        names = ",".join(array["name"] for array in self.arrays())
        lines = slurm("squeue", "-h", "-r", f"--name={names}", "-o", "%i|%T|%N").splitlines()
        return {job: (state, node) for job, state, node in (line.split("|") for line in lines)}

    def runs(self):
        return read_sweep(self.file).runs()

    def folders(self):
        return [self.results / config.folder_name for config in self.runs()]

    def steps(self, folder):
        """Steps that a running run has noted."""
        try:
            return json.loads((folder / "progress.json").read_text())["step"]
        except (OSError, ValueError):
            return 0

    def under_way(self, but=()):
        """Owners of the runs that train now and have saved a checkpoint, by run folder."""
        owners = {}
        for folder in self.folders():
            owner = ownership.read(folder / "lock")
            busy = ownership.is_held(folder / "lock") and (folder / "checkpoint.pt").exists() and self.steps(folder)
            if owner and busy and owner.job not in but and owner.job in self.queue():
                owners[folder] = owner
        return owners

    def one_under_way(self, but=(), node=None):
        """A run that trains now, and its owner."""

        def found():
            for folder, owner in self.under_way(but).items():
                if node is None or self.queue().get(owner.job, ("", ""))[1] == node:
                    return folder, owner
            return None

        return wait_until(found, 120, "a run that trains")

    def all_done(self):
        return all((folder / "done").exists() for folder in self.folders())

    def wait_for_all(self, seconds):
        wait_until(lambda: self.all_done() or not self.queue(), seconds, "the end of all jobs")
        assert self.all_done(), self.say("status")

    def assert_undisturbed(self, folder):
        """Every run has the records and weights of one that nobody disturbed, bit for bit."""
        for config in self.runs():
            assert_same(self.results / config.folder_name, run(config, folder / config.folder_name))

    def restarts(self):
        """How often Slurm started each job again, by id."""
        found = {}
        for array in self.arrays():
            for job in array["ids"]:
                match = re.search(r"Restarts=(\d+)", slurm("scontrol", "show", "job", job))
                found[job] = int(match[1])
        return found

    def job_log(self, job):
        return "\n".join(path.read_text() for path in (self.results / "jobs").glob(f"*/{job}_0_log.*"))

    def log(self, name):
        return "\n".join((folder / name).read_text() for folder in self.folders() if (folder / name).exists())
