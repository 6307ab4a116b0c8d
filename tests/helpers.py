"""A small run on EmojiStyles, ways to kill it, and what must be equal however often it was killed."""

import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from domainbed_sage.config import Machine, RunConfig, make_config
from domainbed_sage.training import train

STEPS = 6
HPARAMS = {
    "ERM": {},
    "SAGE": {"rho": 1e-3, "gamma": 0.1},
    "GGA": {"radius": 1e-3, "start": 1, "end": 4, "trials": 2},
}
OF_THE_MOMENT = ("step_time", "mem_gb", "commit")

_sessions: list[int] = []  # leaders of the processes that a test starts
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["domainbed_sage.training.train", "domainbed_sage.cli"])


def small_config(algorithm="ERM", *, hparams=None, **changes) -> RunConfig:
    """6 steps with evaluations at 0, 3 and 5, of a network with 25 thousand weights."""
    settings = {"dataset": "EmojiStyles", "model": "small_cnn", "test_envs": [0], "steps": STEPS, "checkpoint_freq": 3}
    hparams = {"width": 8, "batch_size": 2} | HPARAMS.get(algorithm, {}) | (hparams or {})
    return make_config(algorithm=algorithm, hparams=hparams, **(settings | changes))


def on_cpu(folder, **changes) -> Machine:
    return Machine(output_dir=folder, device=torch.device("cpu"), **changes)


def run(config, folder, *, stop=None, **machine) -> Path:
    """Train in this process with one thread, so that every process gets the same sums."""
    torch.set_num_threads(1)
    train.run(config, on_cpu(folder, **machine), stop)
    return folder


def records(folder):
    """The records, strict JSON, without what may differ between two machines or two moments."""
    lines = [strictly(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for line in lines:
        line["args"].pop("output_dir")
    return [{key: value for key, value in line.items() if key not in OF_THE_MOMENT} for line in lines]


def strictly(text):
    """The value of a JSON text, in which NaN and Infinity, which Python's parser takes, are mistakes."""

    def refuse(word):
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def weights(folder):
    return torch.load(folder / "model.pkl", weights_only=True)["model_dict"]


def assert_same(folder, reference):
    """Both runs are finished, with the same records and the same bits in every weight."""
    assert (folder / "done").read_text() == (reference / "done").read_text() == "done"
    assert records(folder) == records(reference)
    ours, theirs = weights(folder), weights(reference)
    assert list(ours) == list(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert {path.name for path in folder.iterdir()} - {"checkpoint.damaged", "checkpoint.previous.damaged"} == {
        *("done", "err.txt", "lock", "model.pkl", "out.txt", "results.jsonl", "run.json")
    }


# Real processes, which die like killed ones


def start(config, folder, *, die_after_step=None, die_at_write=None, environ=None, **machine):
    """Train in a process of its own; it kills itself right after a step, or in the middle of its n-th write."""
    arguments = (config, on_cpu(folder, **machine), die_after_step, die_at_write, environ)
    return _start(_train, *arguments)


def _start(function, *arguments):
    process = _processes.Process(target=_in_session, args=(function, *arguments))
    process.start()
    _sessions.append(process.pid)
    return process


def _in_session(function, *arguments):
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start what runs behind them without it
    multiprocessing.set_start_method("fork", force=True)  # of the loader processes, as on the command line
    torch.set_num_threads(1)
    function(*arguments)


def end_sessions():
    """End what the processes of a test have left behind: a loader process may survive a parent that is killed."""
    while _sessions:
        with suppress(ProcessLookupError):
            os.killpg(_sessions.pop(), signal.SIGKILL)


def ended(process, timeout=60):
    """Exit status of a process, which has to end by itself; -9 when it was killed."""
    process.join(timeout)
    status = process.exitcode
    process.kill()
    process.join()
    process.close()
    return status


def alive(pid):
    """Whether a process runs; one that has ended and that nobody asked after is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _train(config, machine, die_after_step, die_at_write, environ):
    os.environ.update(environ or {})
    if environ is None:
        machine = replace(machine, look_every_s=float("inf"))  # no writes that depend on the time
    if die_after_step is not None:
        _die_after_step(die_after_step)
    if die_at_write is not None:
        _die_at_write(die_at_write)
    train.run(config, machine)


def command(words, errors):
    """The command line in a process and session of its own, as the terminal would start it; errors go to a file."""
    return _start(_command, [str(word) for word in words], errors)


def _command(words, errors):
    from domainbed_sage.cli import main

    with errors.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.exit(main(words))


def wait_for(condition, process=None, seconds=120):
    """Wait for a condition, as long as the process lives that is to bring it about."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.exitcode is None, "it ended before that"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after_step(number):
    step = train.Loop._step

    def last_step(self, at, batch):
        step(self, at, batch)
        if at == number:
            _die()

    train.Loop._step = last_step


def _die_at_write(number):
    """Die at the n-th of all calls that bring a file to the disk, rename one or remove one.

    A file that was being written loses its last bytes.
    """
    calls = itertools.count(1)

    def deadly(function, tear=lambda target: None):
        def call(target, *args, **kwargs):
            if next(calls) == number:
                tear(target)
                _die()
            return function(target, *args, **kwargs)

        return call

    os.fsync = deadly(os.fsync, tear=lambda file: os.ftruncate(file, max(os.fstat(file).st_size - 20, 0)))
    Path.replace = deadly(Path.replace)
    Path.unlink = deadly(Path.unlink)


def hold_lock(folder):
    """A process that owns a run's folder until it is killed; it returns when the folder is locked."""
    locked = _processes.Event()
    process = _start(_hold_lock, folder, locked)
    assert locked.wait(60)
    return process


def _hold_lock(folder, locked):
    from domainbed_sage.training.run_folder import RunFolder

    with RunFolder(folder).locked():
        locked.set()
        signal.pause()
