"""Fixtures for all tests."""

import signal
import sys
from pathlib import Path

import pytest
from algorithm_cases import one_thread
from fake_slurm import FakeSlurm

from domainbed_sage.algorithms import algorithms
from domainbed_sage.core import plugins
from domainbed_sage.data import own
from domainbed_sage.data.specs import datasets
from domainbed_sage.models import models
from domainbed_sage.training.callbacks import callbacks

pytest.register_assert_rewrite("helpers")


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Of those that a test starts through `helpers`."""
    yield
    if "helpers" in sys.modules:
        sys.modules["helpers"].end_sessions()


@pytest.fixture
def forget_plugins(tmp_path_factory):
    """What a test loads is unknown again afterwards, but for libraries: those cannot be imported twice."""
    kept = [algorithms._things, datasets._things, models._things, callbacks._things, plugins._loaded, own._specs]
    before, path, modules = [dict(things) for things in kept], list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    temporary = tmp_path_factory.getbasetemp().resolve()  # not the folder of temporary files: this clone may be there
    for name in [name for name in sys.modules if name not in modules]:
        file = getattr(sys.modules[name], "__file__", None)
        if file and temporary in Path(file).resolve().parents:
            del sys.modules[name]
    for things, then in zip(kept, before, strict=True):
        for name in things.keys() - then.keys():  # type: ignore[attr-defined]
            del things[name]  # type: ignore[attr-defined]


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """A Slurm that keeps a queue and runs nothing."""
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", fake.path)
    return fake


@pytest.fixture(scope="module")
def in_one_thread():
    """Sums have one order, and times one core."""
    with one_thread():
        yield


@pytest.fixture
def restore_signals():
    """`domainbed-sage train` catches signals until its process ends; here the process goes on."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
