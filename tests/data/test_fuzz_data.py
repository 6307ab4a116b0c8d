"""A short run of the random trees and archives."""

import pytest
from fuzzing.data import fuzz_archives, fuzz_folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("fuzz", [fuzz_folders, fuzz_archives])
def test_each_is_read_or_refused(fuzz):
    short = settings(
        max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    short(given(st.data())(fuzz))()
