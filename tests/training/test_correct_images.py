"""The bits of correct images that a run keeps: what they are of, and that no interruption changes them."""

import logging
import math
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import STEPS, ended, on_cpu, records, run, small_config, start, weights

from domainbed_sage.core.errors import Stopped
from domainbed_sage.results import correctness
from domainbed_sage.training import finished
from domainbed_sage.training.assessment import assess
from domainbed_sage.training.correct import CorrectImages

FILE = "correct.npz"


def config_of(**changes):
    return small_config("ERM", checkpoint_freq=1, hparams={"lr": 3e-3}, **changes)


@pytest.fixture(scope="module", params=["lazy", "full"])
def kept(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "run"
    return run(config_of(evaluation=request.param), folder, keep_correctness=True)


def test_gives_the_accuracies_of_the_records(kept):
    found, lines = finished.read(kept), {line["step"]: line for line in records(kept)}
    correct = correctness.read(kept / FILE)[0]
    assert found.selected_step is not None
    assert list(correct.at) == sorted({found.selected_step, STEPS - 1})
    assert found.selected_step < STEPS - 1, "else the test below would not see which step is kept"
    for step in correct.at:
        assert correct.accuracy(step) == lines[step]["env0_in_acc"]


def test_names_the_images_of_the_last_step(kept):
    (result,) = assess(kept, on_cpu(kept), ["0"], ["in"]).results
    correct = correctness.read(kept / FILE)[0]
    names = [key for key, right in zip(result.keys, result.labels == result.predicted, strict=True) if right]
    experiment = finished.load(finished.read(kept), on_cpu(kept))
    environment = experiment.evaluator.environments[0]
    assert sorted(names) == sorted(np.array(environment.keys)[correct.at[STEPS - 1]])
    assert sorted(result.keys) == sorted(np.array(environment.keys)[correct.tested])
    assert correct.images == correctness.identity(environment.keys)


def test_changes_nothing_else(kept, tmp_path):
    evaluation = finished.read(kept).config.evaluation
    without = run(config_of(evaluation=evaluation), tmp_path / "run")
    assert not (without / FILE).exists()
    assert records(kept) == records(without)
    ours, theirs = weights(kept), weights(without)
    assert all(np.array_equal(ours[name].numpy(), theirs[name].numpy()) for name in theirs)
    assert (kept / "run.json").read_bytes() == (without / "run.json").read_bytes()
    assert {path.name for path in kept.iterdir()} - {path.name for path in without.iterdir()} == {FILE}


def test_stopped_or_killed_after_every_step(kept, tmp_path):
    config, stop = finished.read(kept).config, threading.Event()
    stop.set()
    for step in range(STEPS - 1):
        with pytest.raises(Stopped):
            run(config, tmp_path / "stopped", stop=stop, keep_correctness=True)
        process = start(config, tmp_path / "killed", die_after_step=step, keep_correctness=True)
        assert ended(process) == -signal.SIGKILL
    for name in ("stopped", "killed"):
        again = run(config, tmp_path / name, keep_correctness=True)
        assert (again / FILE).read_bytes() == (kept / FILE).read_bytes()


def test_killed_in_any_write_of_the_end(tmp_path):
    config = small_config(steps=1, checkpoint_freq=1)
    undisturbed = run(config, tmp_path / "undisturbed", keep_correctness=True)
    write, status = 5, -signal.SIGKILL  # those before are of the description and of the only record
    while status == -signal.SIGKILL:
        write += 1
        folder = tmp_path / str(write)
        status = ended(start(config, folder, die_at_write=write, save_every_s=0, keep_correctness=True))
        run(config, folder, keep_correctness=True)
        assert (folder / FILE).read_bytes() == (undisturbed / FILE).read_bytes()
        assert records(folder) == records(undisturbed)
        assert not list(folder.glob("*.tmp"))
    assert status == 0


def test_begun_without_it(kept, tmp_path, caplog):
    """The selected step was before: the file says what it has, and the log what it has not."""
    config, stop = finished.read(kept).config, threading.Event()
    stop.set()
    for _ in range(finished.read(kept).selected_step + 1):
        with pytest.raises(Stopped):
            run(config, tmp_path / "run", stop=stop)
    with caplog.at_level(logging.WARNING, logger="domainbed_sage"):
        run(config, tmp_path / "run", keep_correctness=True)
    assert "ran without --keep_correctness" in caplog.text
    found, whole = correctness.read(tmp_path / "run" / FILE)[0], correctness.read(kept / FILE)[0]
    assert list(found.at) == [STEPS - 1]
    np.testing.assert_array_equal(found.at[STEPS - 1], whole.at[STEPS - 1])


def test_begun_without_it_before_the_selected_step(kept, tmp_path, caplog):
    config, stop = finished.read(kept).config, threading.Event()
    stop.set()
    assert finished.read(kept).selected_step > 0
    with pytest.raises(Stopped):
        run(config, tmp_path / "run", stop=stop)
    with caplog.at_level(logging.WARNING, logger="domainbed_sage"):
        run(config, tmp_path / "run", keep_correctness=True)
    assert "keep_correctness" not in caplog.text
    assert (tmp_path / "run" / FILE).read_bytes() == (kept / FILE).read_bytes()


def test_of_equal_accuracies_the_first_is_kept():
    """As training-domain selection chooses; an evaluation of which an accuracy is missing is never chosen."""
    evaluator = SimpleNamespace(correct={0: np.array([True])}, source_accuracy=lambda found: found["source"])
    kept = CorrectImages(evaluator)
    for step, source in enumerate((math.nan, 0.5, 0.4, 0.5, math.nan)):
        kept.note(step, {"source": source}, last=step == 4, is_ending=False)
    assert list(kept.kept) == [1, 4]


def test_of_the_weights_that_a_method_ends_in(tmp_path):
    """No checkpoint is selected then, however good its source accuracy."""
    hparams = {"around": "ERM", "around_hparams": {}, "n_converge": 1, "n_tolerance": 1, "tolerance_ratio": 1e6}
    config = small_config("SWAD", checkpoint_freq=1, hparams=hparams | {"lr": 3e-3})
    folder = run(config, tmp_path / "run", keep_correctness=True)
    correct, last = correctness.read(folder / FILE)[0], records(folder)[-1]
    assert last["evaluated"]
    assert list(correct.at) == [STEPS - 1]
    assert correct.accuracy(STEPS - 1) == last["env0_in_acc"]


def test_of_every_held_out_environment(tmp_path):
    folder = run(config_of(test_envs=[0, 2]), tmp_path / "run", keep_correctness=True)
    last = records(folder)[-1]
    for env, correct in correctness.read(folder / FILE).items():
        assert correct.accuracy(STEPS - 1) == last[f"env{env}_in_acc"]
    assert list(correctness.read(folder / FILE)) == [0, 2]
