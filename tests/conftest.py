"""Fixtures for all tests."""

import signal
import sys
from pathlib import Path

import pytest

from domainbed_sage.algorithms import algorithms
from domainbed_sage.core import plugins
from domainbed_sage.models import models
from domainbed_sage.training.callbacks import callbacks

pytest.register_assert_rewrite("helpers")


@pytest.fixture(autouse=True)
def no_process_is_left():
    """Of those that a test starts through `helpers`."""
    yield
    if "helpers" in sys.modules:
        sys.modules["helpers"].end_sessions()


def _lies_in(module, folders):
    return str(Path(getattr(module, "__dict__", {}).get("__file__") or "/").parent) in folders


@pytest.fixture
def forget_plugins():
    """What a test loads is unknown again afterwards."""
    kept = [algorithms._things, models._things, callbacks._things, plugins._loaded]
    before, path = [dict(things) for things in kept], list(sys.path)
    yield
    added = set(sys.path) - set(path)
    sys.path[:] = path
    for things, then in zip(kept, before, strict=True):
        for name in things.keys() - then.keys():
            del things[name]
    for name in [name for name, module in sys.modules.items() if _lies_in(module, added)]:
        del sys.modules[name]


@pytest.fixture
def restore_signals():
    """`domainbed-sage train` catches signals until its process ends; here the process goes on."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
