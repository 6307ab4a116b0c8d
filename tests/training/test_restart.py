"""A run that is stopped or killed, at whatever moment, ends with the bits of one that was left in peace."""

import random
import shutil
import signal
import threading

import pytest
import torch
from helpers import HPARAMS, STEPS, assert_same, ended, on_cpu, records, run, small_config, start, weights

from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.training import checkpoint, train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folders of finished runs, one per algorithm."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {algorithm: run(small_config(algorithm), folder / algorithm) for algorithm in HPARAMS}


def test_the_runs_feel_noise_and_search(undisturbed, tmp_path):
    """Otherwise the tests below could not see noise, or a search, that is drawn anew after a restart."""
    for algorithm, switched_off in (("SAGE", {"gamma": 0.0}), ("GGA", {"radius": 0.0})):
        without = run(small_config(algorithm, hparams=switched_off), tmp_path / algorithm)
        ours, theirs = weights(undisturbed[algorithm]), weights(without)
        assert not any(torch.equal(ours[name], theirs[name]) for name in ours if name.endswith("weight"))
    accepted = [line["accepted"] for line in records(undisturbed["GGA"]) if "accepted" in line]
    assert sum(accepted) > 0


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("algorithm", HPARAMS)
def test_stopped_after_every_step(undisturbed, tmp_path, algorithm, num_workers):
    stop = threading.Event()
    stop.set()
    for step in range(STEPS - 1):
        with pytest.raises(Stopped, match=rf"after step {step}; start the same command again to continue"):
            run(small_config(algorithm), tmp_path / "run", stop=stop, num_workers=num_workers)
    run(small_config(algorithm), tmp_path / "run", stop=stop, num_workers=num_workers)
    assert_same(tmp_path / "run", undisturbed[algorithm])
    assert (tmp_path / "run" / "err.txt").read_text() == ""


@pytest.mark.parametrize("algorithm", HPARAMS)
def test_killed_after_every_step(undisturbed, tmp_path, algorithm):
    for step in range(STEPS):
        assert ended(start(small_config(algorithm), tmp_path / "run", die_after_step=step)) == -signal.SIGKILL
    assert_same(run(small_config(algorithm), tmp_path / "run"), undisturbed[algorithm])


def test_killed_again_and_again_with_workers(undisturbed, tmp_path):
    """Each time the loader processes outlive the killed one by some seconds; they must not keep the folder locked."""
    for step in (1, 4, 5):
        process = start(small_config("SAGE"), tmp_path / "run", die_after_step=step, num_workers=2)
        assert ended(process) == -signal.SIGKILL
    assert_same(run(small_config("SAGE"), tmp_path / "run", num_workers=2), undisturbed["SAGE"])


def test_killed_in_any_write(tmp_path):
    """At every write, rename and removal of a run: description, records, checkpoints, model, `done`, cleaning."""
    config = small_config("SAGE", steps=4, checkpoint_freq=2)
    undisturbed, write, status = run(config, tmp_path / "undisturbed"), 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        write += 1
        status = ended(start(config, tmp_path / str(write), die_at_write=write, save_every_s=0))
        assert_same(run(config, tmp_path / str(write)), undisturbed)
    assert status == 0
    description, three_records, four_checkpoints, kept, model, done, removals = 2, 3, 4 * 2, 3, 2, 2, 5
    assert write - 1 == description + three_records + four_checkpoints + kept + model + done + removals


@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_at_random_moments_until_it_ends(tmp_path, num_workers):
    config = small_config("SAGE", steps=30, checkpoint_freq=3)
    rng, delay, kills, status = random.Random(num_workers), 0.05, -1, -signal.SIGKILL
    while status == -signal.SIGKILL:
        process = start(config, tmp_path / "killed", num_workers=num_workers, save_every_s=0.1)
        process.join(delay * (1 + rng.random()))
        process.kill()  # without effect where it has ended by itself
        status, kills, delay = ended(process), kills + 1, delay * 1.25
    assert status == 0
    assert kills > 3
    assert_same(tmp_path / "killed", run(config, tmp_path / "undisturbed"))
    assert None in {line["env0_in_acc"] for line in records(tmp_path / "killed")}  # the best so far counted


def test_the_guard_measures_once_in_a_run(undisturbed, tmp_path, monkeypatch):
    """Measured anew at other weights, a run near the limit would finish whole, and die where it was interrupted."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped, match="after step 0"):
        run(small_config("SAGE"), tmp_path / "run", stop=stop)
    path = tmp_path / "run" / "checkpoint.pt"
    state = checkpoint.read(path)
    assert 0.9 < state["algorithm"]["perturbation_cosine"] <= 1
    old = shutil.copytree(tmp_path / "run", tmp_path / "old")
    del state["algorithm"]["perturbation_cosine"]
    torch.save(state, old / "checkpoint.pt")  # as earlier versions wrote it

    def too_low(*_):
        raise UserError("does not survive")

    with monkeypatch.context() as patch:
        patch.setattr("domainbed_sage.algorithms.base.Guard", too_low)
        assert_same(run(small_config("SAGE"), tmp_path / "run"), undisturbed["SAGE"])
        with pytest.raises(UserError, match="does not survive"):
            run(small_config("SAGE"), old)
    assert_same(run(small_config("SAGE"), old), undisturbed["SAGE"])


def test_other_number_of_threads_after_a_restart(undisturbed, tmp_path):
    config, stop = small_config("ERM"), threading.Event()
    stop.set()
    with pytest.raises(Stopped, match="after step 0"):
        run(config, tmp_path / "run", stop=stop)
    try:
        torch.set_num_threads(2)
        train.run(config, on_cpu(tmp_path / "run"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert_same(tmp_path / "run", undisturbed["ERM"])
