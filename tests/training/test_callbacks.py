"""Listeners: TensorBoard's real event files, the example for a tracking service, and listeners that fail."""

import importlib.util
import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import assert_same, records, run, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
