"""Results folders that several tests of results use."""

import pytest
from reference import sweep_folder


@pytest.fixture
def gappy(tmp_path):
    """ERM complete with two trials; SAGE lacks environment 1 of trial 1 and environment 2 altogether."""
    sweep_folder.write_flat(tmp_path, [0.50, 0.60, 0.70], trial=0)
    sweep_folder.write_flat(tmp_path, [0.54, 0.60, 0.76], trial=1)
    sweep_folder.write_flat(tmp_path, [0.50, 0.80, None], trial=0, algorithm="SAGE")
    sweep_folder.write_flat(tmp_path, [0.60, None, None], trial=1, algorithm="SAGE")
    return tmp_path
