"""Listeners: TensorBoard's real event files, the example for a tracking service, and listeners that fail."""

import importlib.util
import logging
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import assert_same, records, run, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils import tensorboard
from torch.utils.tensorboard import SummaryWriter

from domainbed_sage.core.errors import Stopped, UserError
from domainbed_sage.training.callbacks import Callback, callbacks, curves

EXAMPLE = Path(__file__).parents[2] / "scripts" / "wandb_callback.py"


@pytest.fixture
def register(monkeypatch):
    """Register a callback for the time of a test."""
    monkeypatch.setattr(callbacks, "_things", dict(callbacks._things))
    return lambda name, make: callbacks.register(name)(make)


def points(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, pytest.approx(e.value)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def recorded(folder, key):
    return [(line["step"], line[key]) for line in records(folder) if line[key] is not None]


def test_curves_leave_out_what_was_not_evaluated():
    record = {"step": 3, "loss": 1.5, "env0_in_acc": float("nan"), "accepted": 1, "args": {}, "device": "cpu"}
    assert curves(record) == {"loss": 1.5, "accepted": 1.0}


def test_tensorboard_has_the_records(tmp_path):
    folder = run(small_config("SAGE"), tmp_path / "run", callbacks=("tensorboard",))
    found = points(folder)
    for key in ("loss", "agreement", "env1_out_acc", "env0_in_acc"):
        assert found[key] == recorded(folder, key)
    assert len(found["loss"]) == 3


def test_tensorboard_after_a_restart_shows_every_step_once(tmp_path):
    stop = threading.Event()
    stop.set()
    for _ in range(4):
        with pytest.raises(Stopped):
            run(small_config(), tmp_path / "run", stop=stop, callbacks=("tensorboard",))
    run(small_config(), tmp_path / "run", callbacks=("tensorboard",))
    assert points(tmp_path / "run")["loss"] == recorded(tmp_path / "run", "loss")


def test_a_failing_callback_costs_a_warning(tmp_path, register, caplog):
    class Broken(Callback):
        def on_record(self, record):
            raise ConnectionError("the service is down")

    register("broken", Broken)
    alone = run(small_config(), tmp_path / "alone")
    with caplog.at_level(logging.WARNING):
        folder = run(small_config(), tmp_path / "run", callbacks=("broken",))
    assert "Callback broken failed: ConnectionError: the service is down. The run goes on." in caplog.text
    assert "the service is down" in (folder / "err.txt").read_text()
    (folder / "err.txt").write_text("")
    assert_same(folder, alone)


@pytest.mark.parametrize("when", ["__init__", "on_start"])
def test_a_callback_that_does_not_begin_is_told_nothing_more(tmp_path, register, caplog, when):
    def refuse(*_):
        raise ConnectionError("the service is down")

    told = []
    methods = {
        when: refuse,
        "on_record": lambda *_: told.append("record"),
        "on_end": lambda *_, **__: told.append("end"),
    }
    register("broken", type("Broken", (Callback,), methods))
    register("whole", type("Whole", (Callback,), {name: methods[name] for name in ("on_record", "on_end")}))
    run(small_config(steps=1), tmp_path / "run", callbacks=("broken", "whole"))
    assert told == ["record", "end"]
    assert caplog.text.count("Callback broken failed: ConnectionError: the service is down. The run goes on.") == 1


def test_a_callback_that_fails_at_the_end(tmp_path, register, caplog):
    class Broken(Callback):
        def on_end(self, *, finished):
            raise ConnectionError("the service is down")

    register("broken", Broken)
    run(small_config(steps=1), tmp_path / "run", callbacks=("broken",))
    assert "Callback broken failed" in caplog.text
    assert (tmp_path / "run" / "done").exists()


def test_a_callback_changes_no_record(tmp_path, register):
    told = []

    class Changes(Callback):
        def on_record(self, record):
            record.clear()

    class Notes(Callback):
        def on_record(self, record):
            told.append(record["step"])

    register("changes", Changes)
    register("notes", Notes)
    folder = run(small_config(steps=1), tmp_path / "run", callbacks=("changes", "notes"))
    assert told == [0]
    assert [line["step"] for line in records(folder)] == [0]


@pytest.mark.parametrize("purged", [True, False])
def test_points_of_a_start_that_was_killed_are_hidden(tmp_path, register, monkeypatch, purged):
    """It had told of step 3, and its checkpoint was that of step 1: the next start tells of step 3 again."""
    board = callbacks["tensorboard"]
    if not purged:
        writer = SummaryWriter
        monkeypatch.setattr(tensorboard, "SummaryWriter", lambda path, purge_step: writer(path))
    for first, loss in ((0, 2.0), (1, 1.0)):
        listener = board()
        listener.on_start(small_config(), tmp_path, first)
        for step in (0, 3)[first > 0 :]:
            listener.on_record({"step": step, "loss": loss})
        listener.on_end(finished=False)
        time.sleep(0.01)
    expected = [(0, 2.0), (3, 1.0)] if purged else [(0, 2.0), (3, 2.0), (3, 1.0)]
    assert points(tmp_path)["loss"] == [(step, pytest.approx(value)) for step, value in expected]


def test_unknown_callback(tmp_path):
    with pytest.raises(UserError, match=r"Unknown callback 'tensorbord'\. Did you mean 'tensorboard'\?"):
        run(small_config(), tmp_path / "run", callbacks=("tensorbord",))


def test_tensorboard_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'domainbed-sage\[tensorboard\]'"):
        run(small_config(), tmp_path / "run", callbacks=("tensorboard",))


def test_order_of_calls_over_a_stop(tmp_path, register):
    calls = []

    class Notes(Callback):
        def on_start(self, config, folder, step):
            calls.append(("start", config.algorithm, folder.name, step))

        def on_record(self, record):
            calls.append(("record", record["step"]))

        def on_end(self, *, finished):
            calls.append(("end", finished))

    register("notes", Notes)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        run(small_config(), tmp_path / "run", stop=stop, callbacks=("notes",))
    run(small_config(), tmp_path / "run", callbacks=("notes",))
    assert calls == [
        *(("start", "ERM", "run", 0), ("record", 0), ("end", False)),
        *(("start", "ERM", "run", 1), ("record", 3), ("record", 5), ("end", True)),
    ]


def test_example_for_a_tracking_service(tmp_path, register, monkeypatch):
    """Against a stand-in that notes what it is told."""
    told = []
    service = SimpleNamespace(
        log=lambda numbers, step: told.append((step, numbers["loss"])), finish=lambda: told.append("finish")
    )
    stand_in = SimpleNamespace(init=lambda **facts: told.append((facts["id"], facts["resume"])) or service)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    spec = importlib.util.spec_from_file_location("wandb_callback", EXAMPLE)
    register("before", Callback)  # a copy of the registry is in place; the example enters itself there
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    folder = run(small_config(), tmp_path / "run", callbacks=("wandb",))
    assert told == [(small_config().run_id, "allow"), *recorded(folder, "loss"), "finish"]
