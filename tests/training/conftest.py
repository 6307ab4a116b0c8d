"""Runs that the tests of checkpoints, run folders and states share."""

import shutil
import threading

import pytest
from helpers import records, run, small_config

from domainbed_sage.core.errors import Stopped


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    return run(small_config(), tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.fixture(scope="session")
def stopped(tmp_path_factory):
    """After step 3: checkpoints of steps 4 and 3, records of steps 0 and 3."""
    folder, stop = tmp_path_factory.mktemp("stopped") / "run", threading.Event()
    stop.set()
    for _ in range(4):
        with pytest.raises(Stopped):
            run(small_config(), folder, stop=stop)
    assert [line["step"] for line in records(folder)] == [0, 3]
    return folder


@pytest.fixture
def begun(stopped, tmp_path):
    """A run of its own that was stopped after its second record, at step 3."""
    return shutil.copytree(stopped, tmp_path / "run")
